"""Operations by places of elements: what reads, writes, orders and counts by them."""
