"""Contracts compared with the functions that they name, and what JAX will really do with them.

Reading order: `sizes` and `cases` (which calls to try), `subjects` (the function), `calls` (the
arguments), `abstract` (one call as a fake), `promises` (derivatives, batches, shards), `numeric`
(small real runs), `prove` (all of it, for one contract and for many files).
"""
