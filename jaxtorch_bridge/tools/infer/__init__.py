"""A first contract of a function, from example arrays or from its annotations.

Reading order: `examples` (what a person typed), `probe` (the function at other sizes), `axes`
(which sizes belong together), `formulas` (sizes of results), `names`, `text` (the YAML), `draft`.
"""
