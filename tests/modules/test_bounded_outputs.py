"""Modules whose results have sizes that follow from values: `from_module` with ``outputs=``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
import torch
from jaxtyping import Float32

from comparing import assert_close, assert_equal
from jaxtorch_bridge import from_module
from jaxtorch_bridge.errors import DynamicSizeError, SpecError, SpecMismatchError

X = jnp.array([1.0, -2.0, 3.0, 4.0])
ONE_BY_ONE = pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
KEPT = {"kept": {"dtype": "float32", "shape": "[k<=4]", "fill": -1}, "count": "int32[]"}


class Boxes(NamedTuple):
    kept: torch.Tensor
    all: torch.Tensor


class Gate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return (x * self.scale)[x > 0]

    def boxes(self, x):
        return Boxes(self(x), x * self.scale)

    def looking(self, x):
        """No evaluation goes past this."""
        if x.sum() > 0:
            x = x * self.scale
        if self.training:
            self.calls += 1
        return {"kept": x[x > 0], "all": x}


def twin(scale, x):
    return jnp.append(x * scale, -1.0)[jnp.nonzero(x > 0, size=4, fill_value=4)[0]]


@ONE_BY_ONE
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_results_are_padded_and_differentiated(jit):
    wrap = jax.jit if jit else lambda g: g
    net = from_module(Gate().eval(), outputs=KEPT)
    for x in (X, -X, 0 * X):
        kept, count = wrap(net.apply)(net.params, x)
        assert_equal(kept, twin(2.0, x))
        assert_equal(count, (x > 0).sum().astype("int32"))

    def loss(params, x):
        return (net.apply(params, x)[0] ** 3).sum()

    gradients = wrap(jax.grad(loss, argnums=(0, 1)))(net.params, X)
    wanted = jax.grad(lambda s, x: (twin(s, x) ** 3).sum(), argnums=(0, 1))(2.0, X)
    assert_close((gradients[0]["scale"], gradients[1]), wanted)
    batch = jnp.stack([X, -X])
    found = wrap(jax.vmap(net.apply, in_axes=(None, 0)))(net.params, batch)
    assert_equal(found, (jnp.stack([twin(2.0, X), twin(2.0, -X)]), jnp.array([3, 1])))


@pytest.mark.filterwarnings("ignore:.*was run twice more")
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("method", ["forward", "boxes", "looking"])
def test_buffers_come_beside_them(method, jit):
    wrap = jax.jit if jit else lambda g: g
    outputs = KEPT if method == "forward" else {**KEPT, "all": "float32[4]"}
    net = from_module(Gate(), method=method, outputs=outputs)

    def call(params, buffers, x):
        result, buffers = net.apply(params, x, buffers=buffers, train=True)
        return result, buffers

    result, buffers = wrap(call)(net.params, net.buffers, X)
    assert_equal(buffers["calls"], jnp.array(1))
    if method == "forward":
        assert_equal(result, (twin(2.0, X), jnp.array(3)))
    elif method == "boxes":
        (kept, every), count = result
        assert_equal((kept, every, count), (twin(2.0, X), 2 * X, jnp.array(3)))
    else:
        assert_equal(result, {"kept": twin(2.0, X), "all": 2 * X, "count": jnp.array(3)})
    gradient = wrap(jax.grad(lambda p: sum(map(jnp.sum, floats(call(p, net.buffers, X)[0])))))
    assert_close(gradient(net.params)["scale"], 8.0 if method == "forward" else 14.0)


def floats(result):
    return [one for one in jax.tree.leaves(result) if one.dtype == jnp.float32]


def test_bounds_by_sizes_of_arguments():
    class Annotated(Gate):
        def forward(self, x: Float32[torch.Tensor, "n"]):  # noqa: F821
            return super().forward(x)

    net = from_module(Annotated().eval(), outputs="float32[k<=2*n]")
    for x in (X, X[:2]):
        assert jax.jit(net.apply)(net.params, x).shape == (2 * len(x),)
    with pytest.raises(SpecMismatchError, match="input `x`"):
        net.apply(net.params, X[None])


def test_what_is_refused():
    net = from_module(Gate().eval())
    with pytest.raises(DynamicSizeError, match="outputs="):
        jax.jit(net.apply)(net.params, X)
    net = from_module(Gate().eval(), outputs="float32[k<=2]")
    with pytest.raises(SpecMismatchError, match=r"at most 2 .* returned 3"):
        net.apply(net.params, X)
    assert_equal(net.apply(net.params, -X), jnp.array([4.0, 0.0]))
    with pytest.raises(SpecError, match="a dtype that both JAX and torch have"):
        from_module(Gate(), outputs="float33[k<=2]")
    net = from_module(Gate().eval(), outputs="int32[k<=4]")
    with pytest.raises(SpecMismatchError, match="expected dtype int32"):
        net.apply(net.params, X)
