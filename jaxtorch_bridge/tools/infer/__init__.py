"""A first contract of a function, from example arrays or from its annotations.

Reading order: `examples` (what a person typed), `probe` (the function at other sizes), `axes`
and `together` (which sizes belong together), `formulas` (sizes of results), `names`,
`from_examples` (all of these), `text` (the YAML), `draft`.
"""
