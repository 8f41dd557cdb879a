"""Products, factorisations and what is made of them."""
