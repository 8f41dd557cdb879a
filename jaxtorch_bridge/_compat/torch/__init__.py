"""Internals of torch. Nothing here loads jax."""
