"""Typed stubs for the callers of torch functions, made from contracts alone.

Reading order: `collect` (files to functions by module), `names` and `arrays` (one annotation),
`trees` (dicts and tuples of arrays), `signature` (parameters and overloads), `text` and `render`
(one module as text), `files` (compare and write). Nothing here imports jax, torch or the
functions themselves.
"""
