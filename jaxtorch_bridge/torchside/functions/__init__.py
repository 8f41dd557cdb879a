"""A torch function over flat tensors, and other functions made from it."""
