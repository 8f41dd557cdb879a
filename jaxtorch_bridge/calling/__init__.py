"""One call of a decorated function, in the order in which it happens."""
