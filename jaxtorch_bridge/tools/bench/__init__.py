"""``jaxtorch bench``: a contract's function by every backend, beside torch."""
