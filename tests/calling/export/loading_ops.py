"""Functions and programs of `test_loading`, which its processes import.

What a program is made from, so that the process which loads it holds the same: functions, modules,
classes. ``PROGRAMS`` has for each the function that is exported, and its arguments.
"""

from __future__ import annotations

import collections
import dataclasses
import enum

import jax
import jax.numpy as jnp
import torch
from jax import export
from transformers.modeling_outputs import BaseModelOutput

from jaxtorch_bridge import from_module, jax_callable
from jaxtorch_bridge.calling.pytrees.torch_nodes import named_tuple

x = jnp.arange(3.0) + 1
rows = jnp.stack([x, x + 1, x * 2])
key = jax.random.key(3)
Pair = collections.namedtuple("Pair", "left right")


class Wave(enum.Enum):
    SINE = 1
    COSINE = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Batch:
    values: object
    scale: object = dataclasses.field(default=1, metadata={"static": True})


@dataclasses.dataclass
class Unknown:
    values: object


@jax_callable
def sine(x):
    return (x * x).sin()


@jax_callable
def wave(x, *, kind=Wave.SINE, scale=1.0, size=None, dtype=torch.float32):
    found = x.sin() if kind is Wave.SINE else x.cos()
    return (found * scale).to(dtype).reshape(size or x.shape)


@jax_callable
def trees(tree, *others, **named):
    left, right = tree["pair"]
    return Pair(left * right, [others[0], {"n": named["last"] + tree["rest"][0]}])


@jax_callable
def either(tree):
    return tree["a"] * 2 if "a" in tree else tree["b"] * 3


@jax_callable
def of_pair(pair):
    return pair.left * pair.right


@jax_callable
def of_batch(batch):
    return Batch(batch.values * batch.scale)


@jax_callable
def of_largest(largest):
    return largest.values * 2 + largest.indices


@jax_callable
def of_output(output):
    return output.last_hidden_state * 2


@jax_callable
def of_unknown(batch):
    return batch.values * 2


@jax_callable
def outputs(x):
    return BaseModelOutput(last_hidden_state=x + 1)


@jax_callable
def optional(x, other=5):
    return x * 2 if other is None else x * 3


@jax_callable(random="key")
def noisy(x):
    return x + torch.rand_like(x)


@jax_callable(mutates=("x",))
def doubled(x):
    x.mul_(2)


@jax_callable(copies=("x",))
def copied(x):
    return x.mul_(2).sin()


@jax_callable
def thrice(x):
    return x * 3


@jax_callable
def looks(x):
    return x * 2 if x.sum() > 0 else -x


@jax_callable
def wide(x):
    return x.double().cumsum(0), x.argmax()


class Scaler:
    def __init__(self, factor):
        self.factor = factor

    @jax_callable
    def scaled(self, x):
        return x * self.factor


scaler = Scaler(4.0)
scaled = scaler.scaled
contract = {
    "schema": "jaxtorch/1",
    "name": "lib.twice",
    "version": "2.1.0",
    "inputs": {"x": "float32[n, k]"},
    "outputs": {"y": "float32[2*n, k]"},
}
twice = jax_callable(lambda x: torch.cat([x, x]), spec=contract)
graph = jax_callable(
    lambda x: torch.cat([x, x]).tanh(),
    spec={**contract, "name": "lib.graph", "execution": {"backend": "graph"}},
)
METHODS = ("torch_vmap", "sequential", "sequential_unrolled", "expand_dims", "broadcast_all")
by_method = {
    method: jax_callable(lambda x: (x * x).sin(), name=method, vmap_method=method)
    for method in METHODS
}
torch.manual_seed(0)
layers = from_module(
    torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
)
closed_over = jax_callable(torch.nn.Linear(3, 2), name="closed_over")
autocast = jax_callable(lambda x: x @ x.T, name="autocast")


def total(f):
    return lambda *arguments: f(*arguments).sum()


def symbolic(text, constraints=()):
    return jax.ShapeDtypeStruct(export.symbolic_shape(text, constraints=constraints), jnp.float32)


def under_autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return autocast(x)


def without_grad(x):
    with torch.no_grad():
        return sine(x)


PROGRAMS = {
    "call": (sine, x),
    "several": (lambda x: sine(x) + jax.jit(thrice)(x) * wave(x), x),
    "static": (lambda x: wave(x, kind=Wave.COSINE, scale=2) + wave(x, scale=True), x),
    "static of torch": (lambda x: wave(x, size=torch.Size([3, 1]), dtype=torch.float16), x),
    "trees": (lambda x: trees({"pair": (x, x + 1), "rest": [x, None]}, x, last=x)[1][1], x),
    "one key": (lambda x: either({"a": x}), x),
    "other key": (lambda x: either({"b": x}), x),
    "named tuple": (lambda x: of_pair(Pair(x, x + 1)), x),
    "registered": (lambda x: of_batch(Batch(x, 2.5)).values, x),
    # A class that only an earlier call would have made.
    "of torch": (lambda x: of_largest(named_tuple("max", ("values", "indices"))(x, x * 2)), x),
    "of a library": (lambda x: of_output(outputs(x)), x),
    "left out": (optional, x),
    "none": (lambda x: optional(x, None), x),
    "empty": (lambda x: optional(x, ()), x),
    "grad": (jax.grad(total(sine)), x),
    "value_and_grad": (jax.value_and_grad(total(sine)), x),
    "jvp": (lambda x: jax.jvp(sine, (x,), (x,)), x),
    "linearize": (lambda x: jax.linearize(sine, x)[1](x), x),
    "jacfwd": (jax.jacfwd(sine), x),
    "jacrev": (jax.jacrev(sine), x),
    "hessian": (jax.hessian(total(sine)), x),
    "second": (jax.grad(total(jax.grad(total(sine)))), x),
    "checkpoint": (jax.grad(total(jax.checkpoint(sine))), x),
    "scan": (lambda x: jax.lax.scan(lambda c, _: (sine(c), c), x, None, length=3), x),
    "transpose": (lambda x: jax.linear_transpose(thrice, x)(x)[0], x),
    "vmap": (jax.vmap(sine), rows),
    "vmap of vmap": (jax.vmap(jax.vmap(sine, 1)), jnp.stack([rows, rows])),
    "vmap of grad": (jax.vmap(jax.grad(total(sine))), rows),
    "grad of vmap": (jax.grad(total(jax.vmap(sine))), rows),
    "vmap of hessian": (jax.vmap(jax.hessian(total(sine))), rows),
    **{f"by {name}": (jax.vmap(f), rows) for name, f in by_method.items()},
    **{f"grad by {name}": (jax.vmap(jax.grad(total(f))), rows) for name, f in by_method.items()},
    "contract": (twice, rows),
    "grad by contract": (jax.grad(total(twice)), rows),
    "graph": (jax.value_and_grad(total(graph)), rows),
    "key": (lambda x: noisy(x, rng=key), x),
    "grad with key": (jax.grad(total(lambda x: noisy(x, rng=key) ** 2)), x),
    "vmap over keys": (jax.vmap(lambda k: noisy(x, rng=k)), jax.random.split(key, 3)),
    "mutates": (doubled, x),
    "grad of mutates": (jax.grad(total(doubled)), x),
    "copies": (jax.value_and_grad(total(copied)), x),
    "method": (scaled, x),
    "module": (closed_over, rows),
    "apply": (lambda p: layers.apply(p, rows, train=False), layers.params),
    "train": (
        jax.value_and_grad(
            lambda p, b: (lambda r, b: (r.sum(), b))(
                *layers.apply(p, rows, buffers=b, rng=key, train=True)
            ),
            has_aux=True,
        ),
        layers.params,
        layers.buffers,
    ),
    "autocast": (under_autocast, rows),
    "no grad": (without_grad, x),
    "x64": (wide, x),
    "any size": (sine, symbolic("b, 3")),
    "grad of any size": (jax.grad(total(sine)), symbolic("b, 3")),
    "computed size": (twice, symbolic("2*b, c", ["c <= 10"])),
}
# Those that another process cannot plan by itself.
UNPLANNED = {
    "unknown": (lambda x: of_unknown(Unknown(x)), x),
    "static function": (
        lambda x: jax_callable_of_functions(x, torch.tanh),
        x,
    ),
    "looks": (looks, x),
}
jax_callable_of_functions = jax_callable(lambda x, function: function(x), name="of_functions")


def concrete(argument):
    """A real argument for one of any size."""
    if not isinstance(argument, jax.ShapeDtypeStruct):
        return argument
    return jnp.ones([size if isinstance(size, int) else 4 for size in argument.shape])


def run(program, arguments):
    """The results as lists."""
    found = program(*map(concrete, arguments))
    return jax.tree.map(
        lambda array: jnp.asarray(array, "float32").tolist(), jax.tree.leaves(found)
    )


__all__ = ["PROGRAMS", "UNPLANNED", "run"]
