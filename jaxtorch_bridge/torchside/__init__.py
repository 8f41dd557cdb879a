"""A torch function over flat tensors, what is derived from it, and how it is run. No jax here."""
