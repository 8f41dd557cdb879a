"""Internals of JAX. Nothing here loads torch."""
