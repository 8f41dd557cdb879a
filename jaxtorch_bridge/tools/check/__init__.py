"""Contracts compared with the functions that they name, and what JAX will really do with them.

Reading order: `sizes` and `cases` (which calls to try), `named_function` (the function), `calls`
(the arguments), `fake_call` (one call as a fake), `promises` and `shards` (derivatives, batches,
shards), `both_sides`, `real_runs` and `gradients` (small real runs), `compare_function` (all of it,
for one contract) and `contract_files` (for many files).
"""
