"""An op as JAX operations in the program, in place of a call of torch."""
