"""The contract of a torch function: YAML text in, a validated `CallableSpec` out.

Reading order: `shapes` and `tensor` (one array), `nodes` (the tree of arrays), `model` (the
contract), `document` and `load` (from text), `sizes` and `enforce` (a call against it).
Nothing here imports jax or torch, so that tools which only read contracts start at once.
"""
