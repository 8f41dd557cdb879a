"""Every use of an internal, with the versions it was tried on.

`jax` and `torch` are two folders so that neither side loads the other.
"""
