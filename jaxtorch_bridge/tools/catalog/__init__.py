"""One static page of all contracts, made from the contracts alone.

Reading order: `collect` (files to versions by name), `signature`, `parts` and `promises` (one
version in words), `compare` (versions side by side), `view` (all of it for the template), `page`
(HTML) and `files` (compare and write). Nothing of these imports jax, torch or the functions; only
`plans` does, which is asked for by name.
"""
