"""Calls that type checkers must accept, with the types that come back. Read, never run."""

from typing import assert_type

from jax import Array
from mylib.choices import choices
from mylib.clashes import float as rated
from mylib.models import Encoder, scale, split, states, step
from mylib.ops import attention, not_in_a_contract, shapes
from mylib.optional import constants, late, noise
from shop.layers import dense
from shop.layers.conv import conv
from torch import Tensor

from jaxtorch_bridge import jax_callable


def single_outputs(x: Array, t: Tensor) -> None:
    assert_type(attention(x, x, x), Array)
    assert_type(attention(x, k=x, v=x, mask=None, causal=True, scale=0.5), Array)
    assert_type(attention(t, t, t, t), Tensor)
    assert_type(dense(x, x), Array)
    assert_type(conv(t), Tensor)


def several_outputs(x: Array, t: Tensor) -> None:
    assert_type(split(x), tuple[Array, Array])
    low, high = split(t)
    assert_type(low, Tensor)
    assert_type(high, Tensor)
    assert_type(states(x)[1], Array)
    assert_type(scale(x)["count"], Array)
    assert_type(scale(t)["scaled"], Tensor)
    assert_type(shapes(x, x, x, x, x, x, x, flag=False, mode="sum", rate=1)[2], Array)


def typed_static_arguments(x: Array, t: Tensor) -> None:
    choices(x, x, table={"codes": x, "weights": x}, eps=1, anything=object(), mode="sum")
    z, codes = choices(
        t, t, table={"codes": t, "weights": t}, eps=0.5, anything=None, dim=-1, axes=[1], level=1
    )
    assert_type(z, Tensor)
    assert_type(codes, Tensor)


def trees(x: Array, t: Tensor) -> None:
    new = step(
        {
            "encoder": {"weight": x, "bias": None},
            "layers": ({"w": x}, x),
            "layer.0 bias": x,
        },
        (x, None),
        (x,),
        (),
        {},
        {"order": x},
    )
    assert_type(new["state"]["lambda"], Array)
    assert_type(new["losses"], tuple[Array, Array])
    old = step(
        {"encoder": {"weight": t}, "layers": ({"w": t}, t), "layer.0 bias": t},
        (t, t),
        single=(t,),
        none=(),
        empty={},
    )
    assert_type(old["state"]["weight"], Tensor)


def optional_inputs(x: Array, t: Tensor) -> None:
    assert_type(noise(), Array)
    assert_type(noise(x, None, x, count=3), Array)
    assert_type(noise(group={"low": x}), Array)
    assert_type(noise(t), Tensor)
    assert_type(noise(group={"low": t}), Tensor)
    assert_type(noise(high=t), Tensor)
    assert_type(constants(count=2), Array)
    assert_type(late(x, second=x), Array)
    assert_type(late(t, bias=t, second=t), Tensor)


def methods(x: Array, t: Tensor) -> None:
    assert_type(Encoder(3).forward(x), Array)
    assert_type(Encoder.Block().forward(t, dropout=0.1), Tensor)


def names_that_clash(x: Array) -> None:
    assert_type(rated(x, {"Array": x, "Tensor": x, "Float32": x}, rate=1.0), tuple[Array, Array])


def what_every_callable_has(x: Array) -> None:
    assert_type(attention.explain(x, x, x), str)
    not_in_a_contract(x)


@jax_callable
def decorated(x: Array, times: int = 1) -> Array:
    return x


@jax_callable(name="other")
def named(x: Array, *, flag: bool) -> tuple[Array, Array]:
    return x, x


class Holder:
    @jax_callable
    def method(self, x: Array, times: int = 1) -> Array:
        return x


def decorated_functions_have_their_own_parameters(x: Array) -> None:
    assert_type(decorated(x), Array)
    assert_type(decorated(x, times=2), Array)
    assert_type(named(x, flag=True)[0], Array)
    assert_type(Holder().method(x, 2), Array)
    assert_type(Holder.method(Holder(), x), Array)
    assert_type(Holder().method.explain(x, times=2), str)
