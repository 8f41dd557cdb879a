"""Modules from `from_module` as modules of other libraries; one file for each of them.

Nothing here is needed for plain pytrees, optax or Orbax: they take ``net.params`` as it is.
"""
