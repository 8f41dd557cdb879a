"""The same programs on wrap-torch2jax 0.9.0 itself, where it is installed (`make bench` does that).

It compiles an extension at its first call on a machine, for about a minute.
"""

from __future__ import annotations

import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import BridgeError, compat

pytest.importorskip("wrap_torch2jax")
pytestmark = pytest.mark.filterwarnings("ignore")

x = jnp.arange(1.0, 4.0)
y = x[::-1] * 0.5
i = jnp.arange(3)
ones, numbers = torch.ones(3), torch.arange(3)
size = torch.Size((3,))


def product(a, b):
    return (a * b).sum()


def energy(a):
    return (torch.tanh(a) ** 3).sum()


def tree(p):
    return {"y": p["a"] * p["b"][0], "n": (p["b"][0].sum(), p["a"] > 1)}


def by_kw(a, b):
    return a * b


def with_labels(a, labels):
    return torch.nn.functional.cross_entropy(a[None], labels[:1])


def wide_sum(a):
    assert a.dtype == torch.float64
    return a.sum()


def stepwise(a):
    return torch.stack([a.cumsum(0), a]).sum(0) if a.ndim == 1 else a


ALIKE = {
    "call": lambda t: t.torch2jax(product, ones, ones)(x, y),
    "jit": lambda t: jax.jit(t.torch2jax(product, ones, ones))(x, y),
    "grad": lambda t: jax.grad(t.torch2jax(product, ones, ones), (0, 1))(x, y),
    "second order": lambda t: jax.jacobian(jax.jacobian(t.torch2jax(energy, ones)))(x),
    "vmap": lambda t: jax.vmap(t.torch2jax(product, ones, ones), (0, None))(jnp.stack([x, y]), y),
    "vmap broadcast_all": lambda t: jax.vmap(
        t.torch2jax(lambda a, b: a * b, ones, ones, vmap_method="broadcast_all"), (0, None)
    )(jnp.stack([x, y]), y),
    "trees": lambda t: t.torch2jax(tree, {"a": ones, "b": [ones]})({"a": x, "b": [y]}),
    "None results": lambda t: t.torch2jax(lambda a: (a, None, {}), ones)(x),
    "keywords": lambda t: t.torch2jax(by_kw, ones, example_kw={"b": ones}, depth=0)(x, b=y),
    "nondiff": lambda t: jax.grad(t.torch2jax(product, ones, ones, nondiff_argnums=(1,)), (0, 1))(
        x, y
    ),
    "nondiff, no zeros": lambda t: jax.grad(
        t.torch2jax(product, ones, ones, nondiff_mask=(True, False), use_zeros=False), (0, 1)
    )(x, y),
    "float0": lambda t: (
        jax.grad(t.torch2jax(product, ones, numbers), (0, 1), allow_int=True)(x, i)[1].dtype
    ),
    "list for one": lambda t: t.torch2jax(lambda a: a, ones, output_shapes=[size])(x),
    "dict for tuple": lambda t: t.torch2jax(
        lambda a: (a, a + 1), ones, output_shapes={"b": size, "a": size}
    )(x),
    "tuple for dict": lambda t: t.torch2jax(
        lambda a: {"b": a, "a": a + 1}, ones, output_shapes=(size, size)
    )(x),
    "integers for shapes": lambda t: t.torch2jax(
        lambda a: (a, a.sum()), ones, output_shapes=((3,), ())
    )(x),
    "narrowed result": lambda t: t.torch2jax(
        lambda a: a.argmax(), ones, output_shapes=jax.ShapeDtypeStruct((), jnp.int64)
    )(x),
    "integer example, float call": lambda t: jax.grad(t.torch2jax(product, ones, numbers), (0, 1))(
        x, y
    ),
    "labels": lambda t: jax.grad(t.torch2jax(with_labels, ones, numbers))(x, i),
    "double example": lambda t: jax.value_and_grad(t.torch2jax(wide_sum, ones.double()))(x),
    "python number": lambda t: t.torch2jax(lambda a, b: a * b, ones, torch.tensor(1.0))(x, 2.5),
    "numpy": lambda t: t.torch2jax(product, ones, ones)(np.ones(3, np.float32), np.ones(3)),
    "other shapes": lambda t: t.torch2jax(product, ones, ones)(jnp.ones(5), jnp.ones(5)),
    "auto": lambda t: t.torch2jax_auto(product)(x, y),
    "without vjp": lambda t: t.torch2jax_without_vjp(product, ones, ones)(x, y),
    "with vjp": lambda t: jax.grad(t.torch2jax_with_vjp(product, ones, ones))(x, y),
    "autograd alone": lambda t: jax.grad(t.torch2jax(energy, ones, use_torch_vjp=False))(x),
    "lock": lambda t: jax.grad(t.torch2jax(energy, ones, lock=True))(x),
    "wrapped in jit": lambda t: jax.jit(lambda a: t.torch2jax(stepwise, a, output_shapes=a)(a) - a)(
        x
    ),
    "t2j of int64": lambda t: t.t2j(numbers),
    "tree_t2j": lambda t: t.tree_t2j({"a": ones, "n": 1}),
    "j2t by the host": lambda t: t.j2t(x, via="cpu").numpy(),
    "dtype": lambda t: (t.dtype_t2j(torch.bfloat16), t.dtype_t2j(jnp.float32)),
}

REFUSED = {
    "wrong shape": lambda t: t.torch2jax(lambda a: a, ones, output_shapes=torch.Size((4,)))(x),
    "wrong rank": lambda t: t.torch2jax(lambda a: a, ones, output_shapes=torch.Size((1, 3)))(x),
    "wrong dtype": lambda t: t.torch2jax(lambda a: a > 0, ones, output_shapes=size)(x),
    "wrong count": lambda t: t.torch2jax(lambda a: (a, a), ones, output_shapes=size)(x),
    "mixed floats": lambda t: t.torch2jax(lambda a, b: a, ones, ones.double(), output_shapes=size)(
        x, x
    ),
    "no floats": lambda t: t.torch2jax(lambda a: a, numbers, output_shapes=size)(i),
    "other structure": lambda t: t.torch2jax(product, ones, ones)([x], y),
    "unknown keyword": lambda t: t.torch2jax(product, ones, ones)(x, b=y),
    "missing keyword": lambda t: t.torch2jax(by_kw, ones, example_kw={"b": ones}, depth=0)(x),
    "beyond depth": lambda t: jax.grad(t.torch2jax(product, ones, ones, depth=0))(x, y),
    "third order": lambda t: jax.grad(
        jax.grad(jax.grad(t.torch2jax(lambda a: a**4, torch.tensor(1.0))))
    )(2.0),
    "mask of other size": lambda t: t.torch2jax(product, ones, ones, nondiff_mask=(True,)),
    "example of no array": lambda t: t.torch2jax(product, ones, 3),
    "no such dtype": lambda t: t.dtype_t2j(torch.qint8),
    "via nothing": lambda t: t.j2t(x, via="air"),
}


def both():
    return [importlib.import_module(name) for name in ("wrap_torch2jax", "jaxtorch_bridge.compat")]


@pytest.mark.parametrize("case", ALIKE)
def test_results_are_the_peers(case):
    theirs, mine = (ALIKE[case](api) for api in both())
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        if isinstance(one, (jax.Array, np.ndarray)):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert_close(one, other)
        else:
            assert one == other


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_peer_refuses_is_refused(case):
    theirs, mine = both()
    try:
        jax.block_until_ready(REFUSED[case](theirs))
    except Exception:  # of any class, some without words
        refused = True
    else:
        refused = False
    assert refused
    with pytest.raises(BridgeError):
        jax.block_until_ready(REFUSED[case](mine))


@pytest.mark.parametrize(
    "name",
    [
        "torch2jax",
        "torch2jax_without_vjp",
        "torch2jax_auto",
        "wrap_torch_fn",
        "t2j",
        "j2t",
        "tree_t2j",
        "tree_j2t",
        "dtype_t2j",
        "Size",
    ],
)
def test_parameters_and_defaults_are_the_peers(name):
    peer = importlib.import_module("wrap_torch2jax")

    def parameters(package):
        found = inspect.signature(getattr(package, name)).parameters.values()
        # What is left over may have any name.
        return [
            (one.kind if one.kind is one.VAR_KEYWORD else one.name, one.kind, one.default)
            for one in found
        ]

    assert parameters(compat) == parameters(peer)
