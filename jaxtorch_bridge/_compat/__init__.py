"""Every use of a JAX or torch internal, with the versions it was tried on.

`jax_internals` and `torch_internals` are two files so that neither side loads the other.
"""
