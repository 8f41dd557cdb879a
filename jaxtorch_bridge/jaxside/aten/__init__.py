"""ATen operations as JAX operations. One file a family; a lowering is a plain function."""
