"""Operations over neighbours in an image, a signal or a volume."""
