"""Parameters and defaults of wrap-torch2jax 0.9.0, also where it is not installed.

`test_peer` compares with the package itself.
"""

from __future__ import annotations

import inspect

import pytest

from jaxtorch_bridge import compat

PARAMETERS = {
    "torch2jax": (
        "torch_fn, *example_args, example_kw=None, depth=2, nondiff_argnums=None, "
        "nondiff_mask=None, output_shapes=None, out_specs=None, use_zeros=True, "
        "use_torch_vjp=True, vmap_method='sequential', lock=False"
    ),
    "torch2jax_without_vjp": (
        "fn, *example_args, example_kw=None, output_shapes=None, out_specs=None, "
        "vmap_method='sequential', lock=False, output_sharding_spec=None"
    ),
    "torch2jax_auto": "torch_fn, output_shapes=None, **options",
    "t2j": "x, via='dlpack'",
    "j2t": "x, via='dlpack'",
    "tree_t2j": "xs, via='dlpack'",
    "tree_j2t": "xs, via='dlpack'",
    "dtype_t2j": "dtype",
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_defaults(name):
    found = inspect.signature(getattr(compat, name)).parameters.values()
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in found]
    assert ", ".join(map(str, plain)) == PARAMETERS[name]
