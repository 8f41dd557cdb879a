"""Operations that go element by element."""
