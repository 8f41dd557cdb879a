"""The contract of a torch function: YAML text in, a validated `CallableSpec` out.

Reading order: `language.shapes` and `tensor` (one array), `array_tree` (the tree of arrays),
`model` (the contract), `files.yaml_document` and `files.load` (from text), `language.sizes` and
`enforce` (a call against it), `compare` (two versions of it).
Nothing here imports jax or torch, so that tools which only read contracts start at once.
"""
