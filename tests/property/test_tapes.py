"""Gradients of random torch programs under random stacks of JAX transformations, against torch.

A program does what a tape must not get wrong: it writes to tensors of its own, makes views, keeps
results, goes through custom functions and hooks, looks at values, and has results that nobody
uses. A stack runs it in loops, branches, batches and again; plain Python loops are its reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

from choosing import examples
from comparing import assert_close
from jaxtorch_bridge import BridgeWarning, jax_callable

pytestmark = pytest.mark.derivatives

SIZE = 4
STEPS = 3


class Scaled(torch.autograd.Function):
    """Saves both inputs and its result."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result = x * y
        ctx.save_for_backward(x, y, result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y, result = ctx.saved_tensors
        return gradient * y + 0 * result, gradient * x


class Kept(torch.autograd.Function):
    """Keeps its input as an attribute, past all hooks."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.x = x
        return x.sin()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * ctx.x.cos()


def again(x: torch.Tensor) -> torch.Tensor:
    """Runs once more in the backward."""
    return torch.utils.checkpoint.checkpoint(lambda x: (x.sin() * x).tanh(), x, use_reentrant=False)


def on_the_side(x: torch.Tensor) -> torch.Tensor:
    """Saved through hooks of its own."""
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone() + 1, lambda t: t - 1):
        return x.square() * 0.3


def force(x: torch.Tensor) -> torch.Tensor:
    """A derivative inside."""
    with torch.enable_grad():
        place = x if x.requires_grad else x.detach().requires_grad_()
        energy = (place**3).sum() + place.prod()
        return torch.autograd.grad(energy, place, create_graph=True)[0] * 0.1


NAMES = {
    "torch": torch,
    "Scaled": Scaled,
    "Kept": Kept,
    "again": again,
    "on_the_side": on_the_side,
    "force": force,
    "WEIGHT": torch.linspace(-1, 1, SIZE, dtype=torch.float64),
}
# From vectors to a vector of the same size, named {v}.
STATEMENTS = (
    "{v} = {x} * {y}",
    "{v} = {x}.sin() + {y}",
    "{v} = {x}.exp() * 0.2",
    "{v} = {x}.sigmoid()",
    "{v} = {x}.softmax(0) * {y}",
    "{v} = {x} * WEIGHT",
    "{v} = {x}.clone(); {v}.mul_({y})",
    "{v} = {x}.cos(); {v}[1:].add_({y}[:-1])",
    "{v} = torch.empty_like({x}); {v}[:2] = {x}[2:]; {v}[2:] = {y}[:2] * {x}[:2]",
    "{v} = {x} * 0.5; {v}.tanh_()",
    "{v} = {x}.flip(0) * {y}",
    "{v} = {x}.view(2, 2).t().reshape(4) * {y}",
    "{v} = ({x}.expand(3, 4) * {y}).sum(0) * 0.3",
    "{v} = {x}[1:].prod() * {y}",
    "{v} = torch.view_as_complex({x}.view(2, 2)).conj().square().imag.repeat(2) * {y}",
    "{v} = ({x}[:, None] @ {y}[None, :]).diagonal()",
    "{v} = {x}.detach() * {y}",
    "{v} = Scaled.apply({x}, {y})",
    "{v} = Kept.apply({x})",
    "{v} = again({x})",
    "{v} = on_the_side({x})",
    "{v} = force({x})",
    "{v} = {x}.cos() if float({x}.detach().sum()) > 0.1 else {x}.sin()",
    "{v} = {x}.index_add(0, ({x} > 0).nonzero()[:, 0], {y}[{x} > 0])",
)
OTHERS = ("{x}", "{x}[1:]", "{x}.sum()", "{x}.view(2, 2)", "WEIGHT", "{x} ** 2", "{x}.detach()")


@dataclass
class Program:
    """The text of a function of two vectors, with three results: a vector, another, integers."""

    lines: list[str] = field(default_factory=list)
    other: str = ""

    @property
    def source(self) -> str:
        last = f"v{len(self.lines) - 1}"
        body = [*self.lines, f"return {last}.tanh(), {self.other}, {last}.argsort()"]
        return "\n    ".join(["def program(x, w):", *body]) + "\n"

    @property
    def function(self) -> Callable[..., Any]:
        names = dict(NAMES)
        exec(self.source, names)
        return names["program"]  # type: ignore[return-value]

    def __repr__(self) -> str:
        return self.source


@st.composite
def programs(draw: Any) -> Program:
    """One to five statements."""
    program, known = Program(), ["x", "w"]
    for index in range(draw(st.integers(1, 5))):
        text = draw(st.sampled_from(STATEMENTS))
        newest = known[-1] if index else "x"
        x, y = draw(st.sampled_from([newest, *known])), draw(st.sampled_from(known))
        program.lines.append(text.format(v=f"v{index}", x=x, y=y))
        known.append(f"v{index}")
    program.other = draw(st.sampled_from(OTHERS)).format(x=draw(st.sampled_from(known)))
    return program


@dataclass(frozen=True)
class Side:
    """What a stack needs, in JAX or, as plain loops and branches, in torch."""

    name: str
    stack: Callable[..., Any]
    where: Callable[..., Any]


JAX = Side("jax", jnp.stack, jnp.where)
TORCH = Side("torch", torch.stack, torch.where)

# A function of two vectors, with a vector as its result.
Function = Callable[[Any, Any], Any]


def loop(on: Side, f: Function) -> Function:
    """``scan`` with the first input as what is carried; the steps' other inputs are stacked."""

    def steps(w: Any) -> Any:
        return on.stack([w, w * 0.5, -w])

    def in_jax(x: Any, w: Any) -> Any:
        carried, all_of_them = jax.lax.scan(lambda c, w: (f(c, w),) * 2, x, steps(w))
        return carried + all_of_them.sum(0)

    def in_torch(x: Any, w: Any) -> Any:
        found = []
        for each in steps(w):
            x = f(x, each)
            found.append(x)
        return x + on.stack(found).sum(0)

    return in_jax if on is JAX else in_torch


def batch(on: Side, f: Function) -> Function:
    """``vmap`` over the first input alone."""

    def call(x: Any, w: Any) -> Any:
        rows = on.stack([x, x * 0.3, -x])
        if on is JAX:
            return jax.vmap(f, (0, None))(rows, w).sum(0)
        return on.stack([f(row, w) for row in rows]).sum(0)

    return call


def checkpointed(policy: Any) -> Callable[[Side, Function], Function]:
    def checkpoint(on: Side, f: Function) -> Function:
        return jax.checkpoint(f, policy=policy) if on is JAX else f

    return checkpoint


def branch(on: Side, f: Function) -> Function:
    """``cond`` between the function and another one, both of which are taken."""

    def call(x: Any, w: Any) -> Any:
        def one(x: Any, w: Any) -> Any:
            if on is JAX:
                return jax.lax.cond(x.sum() > 0, f, lambda x, w: x * w, x, w)
            return f(x, w) if x.sum() > 0 else x * w

        return one(x, w) + one(-x, w)

    return call


def over_a_mesh(on: Side, f: Function) -> Function:
    """``shard_map``; on one device here."""
    if on is TORCH:
        return f
    mesh = jax.make_mesh((1,), ("i",), (AxisType.Auto,), devices=jax.devices()[:1])
    row, whole = PartitionSpec("i"), PartitionSpec()

    def call(x: Any, w: Any) -> Any:
        mapped = jax.shard_map(
            lambda x, w: f(x[0], w)[None], mesh=mesh, in_specs=(row, whole), out_specs=row
        )
        return mapped(x[None], w)[0]

    return call


def twice(on: Side, f: Function) -> Function:
    """Two calls, one of which has one array for both inputs."""
    return lambda x, w: f(x, w) + f(w, w)


def jitted(on: Side, f: Function) -> Function:
    return jax.jit(f) if on is JAX else f


LAYERS = {
    "scan": loop,
    "vmap": batch,
    "checkpoint": checkpointed(None),
    "checkpoint, all kept": checkpointed(jax.checkpoint_policies.everything_saveable),
    "checkpoint, products kept": checkpointed(jax.checkpoint_policies.dots_saveable),
    "cond": branch,
    "shard_map": over_a_mesh,
    "twice": twice,
    "jit": jitted,
}


def stacked(on: Side, call: Callable[..., Any], names: list[str], unused: str) -> Function:
    def function(x: Any, w: Any) -> Any:
        first, other, _ = call(x, w)
        if unused == "first":
            return x + other.sum()
        return first if unused == "other" else first + other.sum()

    for name in names:
        function = LAYERS[name](on, function)
    return function


X = np.array([0.4, -0.7, 1.1, 0.2])
W = np.array([-0.3, 0.9, 0.5, -1.2])
WEIGHTS = (np.array([1.0, 2.0, -1.0, 0.5]), np.array([0.0, -1.0, 3.0, 1.0]))


def torch_gradients(function: Function, pulls: int) -> list[Any]:
    x, w = (torch.tensor(array, requires_grad=True) for array in (X, W))
    result = function(x, w)
    found = [result.detach()]
    for weights in WEIGHTS[:pulls]:
        if not result.requires_grad:
            found += [torch.zeros(SIZE, dtype=torch.float64)] * 2
            continue
        found += torch.autograd.grad(
            result,
            (x, w),
            torch.tensor(weights),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    return found


def jax_gradients(function: Function, pulls: int, jit: bool) -> list[Any]:
    def run(x: Any, w: Any) -> list[Any]:
        result, pull = jax.vjp(function, x, w)
        return [result, *(part for weights in WEIGHTS[:pulls] for part in pull(weights))]

    return (jax.jit(run) if jit else run)(jnp.asarray(X), jnp.asarray(W))


@settings(max_examples=examples(30))
@given(
    program=programs(),
    names=st.lists(st.sampled_from(list(LAYERS)), max_size=3),
    unused=st.sampled_from(["", "first", "other"]),
    pulls=st.integers(0, 2),
    jit=st.booleans(),
)
def test_random_stacks(program, names, unused, pulls, jit):
    # One mesh at a time. More loops would be slow: each multiplies the calls.
    assume(names.count("shard_map") <= 1)
    assume(names.count("scan") + names.count("vmap") <= 2)
    # JAX 0.10 itself fails, with `jax.numpy` functions as well.
    assume(not {"cond", "vmap", "shard_map"} <= {*names})
    try:
        wanted = torch_gradients(stacked(TORCH, program.function, names, unused), pulls)
    except RuntimeError:
        event("torch itself cannot")
        assume(False)
    with warnings.catch_warnings(), jax.enable_x64(True):
        # Functions that look at values are called once for each element of a batch.
        warnings.simplefilter("ignore", BridgeWarning)
        wrapped = jax_callable(program.function)
        if "float(" in program.source or "nonzero" in program.source:
            wrapped(jnp.asarray(X), jnp.asarray(W))  # Planned with values.
        for _ in range(2):
            found = jax_gradients(stacked(JAX, wrapped, names, unused), pulls, jit)
            for ours, theirs in zip(found, wanted, strict=True):
                assert_close(ours, theirs.numpy(), factor=1000, scale=1)
