"""Random torch programs under every JAX transformation, against torch.func on the same programs.

A program is the text of a torch function, so that a failing one can be read and pasted.
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
from hypothesis import event, given, note, settings
from hypothesis import strategies as st

from choosing import examples
from comparing import assert_close
from jaxtorch_bridge import jax_callable

# Torch cannot batch some of the functions here, which is said once a callable.
pytestmark = [pytest.mark.derivatives, pytest.mark.filterwarnings("ignore:.*once for each element")]

F = torch.nn.functional
BATCH = 3
MOST_ELEMENTS = 24

# Where a program finds names that are not its own: a tensor that it closes over among them.


def plain_layer_norm(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """`F.layer_norm` of plain operations."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)


SURROUNDINGS = {
    "torch": torch,
    "F": F,
    "plain_layer_norm": plain_layer_norm,
    "WEIGHT": torch.linspace(-1, 1, 4, dtype=torch.float64),
}

ELEMENTWISE = (
    "torch.sin({x})",
    "torch.tanh({x})",
    "torch.exp(-{x} ** 2)",
    "torch.sigmoid({x})",
    "F.softplus({x})",
    "F.gelu({x})",
    "{x}.square()",
    "{x} * 0.5 + 1",
    "{x}.clone().mul_(0.7)",
    "{x}.clone().mul_({x})",
    "torch.where({x} > 0, {x}, {x}.sin())",
    "{x} * WEIGHT[1]",
)
PAIRS = (
    "{x} * {y}",
    "{x} + {y}",
    "{x} - {y}",
    "{x} / (1 + {y} ** 2)",
    "torch.where({y} > 0, {x}, {x} * {y})",
    "{x}.clone().mul_({y})",
)
# Along an axis of size n, the last of which is n - 1.
ALONG = (
    "{x}.sum({axis})",
    "{x}.mean({axis}, keepdim=True)",
    "{x}.logsumexp({axis})",
    "{x}.softmax({axis})",
    "{x}.cumsum({axis})",
    "{x}.flip({axis})",
    "{x}.roll(1, {axis})",
    "torch.cat([{x}, {x}.sin()], {axis})",
    "torch.stack([{x}, {x} * 2], {axis})",
    "{x}.narrow({axis}, {last}, 1)",
    "{x}.select({axis}, {last})",
    "{x}.index_select({axis}, torch.tensor([{last}, 0, 0]))",
    "{x}.gather({axis}, torch.zeros({shape}, dtype=torch.int64))",
    "{x}.gather({axis}, {x}.detach().argsort({axis}))",
    "{x}.transpose({axis}, 0)",
    "{x}.unsqueeze({axis})",
    "{x}.max({axis})[0]",
)
WHOLE = (
    "{x}.reshape(-1)",
    "{x}.permute({order})",
    "{x}.expand(2, *{shape})",
    "F.layer_norm({x}, {shape}[-1:])",
    "{x}[..., ::2]",
    "{x} @ torch.linspace(-1, 1, 2 * {width}, dtype=torch.float64).reshape({width}, 2)",
    "{x} @ {x}.transpose(-1, -2)",
    "torch.complex({x}, {x} + 1).abs()",
    "torch.view_as_complex(torch.stack([{x}, {x}.cos()], -1)).square().imag",
)
INTEGERS = ("{x}.argmax()", "({x} > 0)", "{x}.reshape(-1).argsort()")
VIEWS = ("{x}", "{x}.reshape(-1)", "{x}.expand(2, *{shape})", "{x}[None]")


@dataclass
class Program:
    """The text of a torch function, and where it is called."""

    shapes: list[tuple[int, ...]]
    lines: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        names = ", ".join(f"x{i}" for i in range(len(self.shapes)))
        body = [*self.lines, f"return {', '.join(self.results)},"]
        return "\n    ".join([f"def program({names}):", *body]) + "\n"

    @property
    def function(self) -> Callable[..., tuple[torch.Tensor, ...]]:
        names = dict(SURROUNDINGS)
        exec(self.source, names)
        return names["program"]  # type: ignore[return-value]

    @property
    def reference(self) -> Callable[..., tuple[torch.Tensor, ...]]:
        """The same of plain operations: torch's reverse over forward mode of `layer_norm` is
        wrong by itself (2.13; finite differences agree with the plain form)."""
        names = dict(SURROUNDINGS)
        exec(self.source.replace("F.layer_norm", "plain_layer_norm"), names)
        return names["program"]  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"shapes {self.shapes}\n{self.source}"


@st.composite
def programs(draw: Any) -> Program:
    """Three to eight operations on one or two inputs."""
    shape = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    program = Program(draw(st.lists(shape, min_size=1, max_size=2)))
    values = {f"x{i}": torch.full(s, 0.3).double() for i, s in enumerate(program.shapes)}
    names = dict(SURROUNDINGS)

    def filled(templates: tuple[str, ...], x: str) -> str:
        text = draw(st.sampled_from(templates))
        size = tuple(values[x].shape)
        axis = draw(st.integers(0, len(size) - 1)) if size else 0
        return text.format(
            x=x,
            y=draw(st.sampled_from(list(values))) if "{y}" in text else "",
            axis=axis,
            last=size[axis] - 1 if size else 0,
            shape=size,
            order=draw(st.permutations(range(len(size)))) if "{order}" in text else "",
            width=size[-1] if size else 1,
        )

    def value_of(text: str) -> torch.Tensor | None:
        try:
            return eval(text, names, dict(values))
        except (RuntimeError, IndexError, TypeError):
            return None  # It does not apply to these shapes.

    kinds = st.sampled_from([ELEMENTWISE, PAIRS, ALONG, ALONG, WHOLE])
    for _ in range(draw(st.integers(3, 8))):
        newest = list(values)[-1]
        text = filled(draw(kinds), draw(st.sampled_from([newest, newest, *values])))
        value = value_of(text)
        if value is None or value.numel() > MOST_ELEMENTS:
            continue
        name = f"y{len(program.lines)}"
        program.lines.append(f"{name} = {text}")
        values[name] = value
    program.results.append(list(values)[-1])
    others = {
        "another": ("{x}",),
        "integers": INTEGERS,
        "view of an input": VIEWS,
        "constant": ("WEIGHT * 2",),
    }
    kind = draw(st.sampled_from([None, "another", *others]))
    if kind is not None:
        of = "x0" if kind == "view of an input" else draw(st.sampled_from(list(values)))
        result = filled(others[kind], of)
        if value_of(result) is not None:
            program.results.insert(draw(st.integers(0, 1)), result)
    return program


@dataclass(frozen=True)
class Side:
    """The same transformations under the same names, in JAX or in torch."""

    grad: Callable[..., Any]
    jvp: Callable[..., Any]
    vjp: Callable[..., Any]
    jacfwd: Callable[..., Any]
    jacrev: Callable[..., Any]
    hessian: Callable[..., Any]
    vmap: Callable[..., Any]


JAX = Side(jax.grad, jax.jvp, jax.vjp, jax.jacfwd, jax.jacrev, jax.hessian, jax.vmap)
TORCH = Side(
    torch.func.grad,
    torch.func.jvp,
    torch.func.vjp,
    torch.func.jacfwd,
    torch.func.jacrev,
    torch.func.hessian,
    torch.func.vmap,
)


@dataclass
class Point:
    """Where a program is differentiated; arrays of one side."""

    axes: tuple[int | None, ...]
    inputs: tuple[Any, ...]
    tangents: tuple[Any, ...]
    weights: tuple[Any, ...]
    batched_inputs: tuple[Any, ...]
    batched_weights: tuple[Any, ...]

    @property
    def all_inputs(self) -> tuple[int, ...]:
        return tuple(range(len(self.inputs)))


def weighed(function: Callable[..., Any], weights: tuple[Any, ...]) -> Callable[..., Any]:
    return lambda *xs: sum(
        (y * w).sum() for y, w in zip(moving(function(*xs)), weights, strict=True)
    )


def moving(results: Any) -> tuple[Any, ...]:
    """The results that may have a derivative."""
    return tuple(y for y in results if "float" in str(y.dtype))


def value(on: Side, f: Any, at: Point) -> Any:
    return f(*at.inputs)


def vjp(on: Side, f: Any, at: Point) -> Any:
    values, pull = on.vjp(lambda *xs: moving(f(*xs)), *at.inputs)
    return values, pull(at.weights)


def grad(on: Side, f: Any, at: Point) -> Any:
    return on.grad(weighed(f, at.weights), at.all_inputs)(*at.inputs)


def jvp(on: Side, f: Any, at: Point) -> Any:
    return on.jvp(lambda *xs: moving(f(*xs)), at.inputs, at.tangents)


def jvp_by_one(on: Side, f: Any, at: Point) -> Any:
    return on.jvp(lambda x: moving(f(x, *at.inputs[1:])), at.inputs[:1], at.tangents[:1])


def jacfwd(on: Side, f: Any, at: Point) -> Any:
    return on.jacfwd(lambda *xs: moving(f(*xs)), at.all_inputs)(*at.inputs)


def jacrev(on: Side, f: Any, at: Point) -> Any:
    return on.jacrev(lambda *xs: moving(f(*xs)), at.all_inputs)(*at.inputs)


def hessian(on: Side, f: Any, at: Point) -> Any:
    return on.hessian(weighed(f, at.weights), at.all_inputs)(*at.inputs)


def forward_over_reverse(on: Side, f: Any, at: Point) -> Any:
    return on.jvp(on.grad(weighed(f, at.weights), at.all_inputs), at.inputs, at.tangents)


def slope(on: Side, f: Any, at: Point) -> Callable[..., Any]:
    return lambda *xs: on.jvp(weighed(f, at.weights), xs, at.tangents)[1]


def reverse_over_forward(on: Side, f: Any, at: Point) -> Any:
    return on.grad(slope(on, f, at), at.all_inputs)(*at.inputs)


def reverse_over_reverse(on: Side, f: Any, at: Point) -> Any:
    gradient = on.grad(weighed(f, at.weights), at.all_inputs)
    along = weighed(gradient, at.tangents)
    return on.grad(along, at.all_inputs)(*at.inputs)


def vmap(on: Side, f: Any, at: Point) -> Any:
    return on.vmap(f, at.axes)(*at.batched_inputs)


def vmap_of_grad(on: Side, f: Any, at: Point) -> Any:
    gradient = on.grad(weighed(f, at.weights), at.all_inputs)
    return on.vmap(gradient, at.axes)(*at.batched_inputs)


def vmap_of_jvp(on: Side, f: Any, at: Point) -> Any:
    return on.vmap(lambda *xs: on.jvp(lambda *ys: moving(f(*ys)), xs, at.tangents)[1], at.axes)(
        *at.batched_inputs
    )


def vmap_of_hessian(on: Side, f: Any, at: Point) -> Any:
    return on.vmap(on.hessian(weighed(f, at.weights), 0), at.axes)(*at.batched_inputs)


def grad_of_vmap(on: Side, f: Any, at: Point) -> Any:
    loss = weighed(on.vmap(f, at.axes), at.batched_weights)
    return on.grad(loss, at.all_inputs)(*at.batched_inputs)


def jvp_of_vmap(on: Side, f: Any, at: Point) -> Any:
    return on.jvp(
        lambda *xs: moving(on.vmap(f, at.axes)(*xs)), at.batched_inputs, at.batched_inputs
    )


def jacrev_of_vmap(on: Side, f: Any, at: Point) -> Any:
    return on.jacrev(lambda *xs: moving(on.vmap(f, at.axes)(*xs)))(*at.batched_inputs)


CHECKS = (
    value,
    vjp,
    grad,
    jvp,
    jvp_by_one,
    jacfwd,
    jacrev,
    hessian,
    forward_over_reverse,
    reverse_over_forward,
    reverse_over_reverse,
    vmap,
    vmap_of_grad,
    vmap_of_jvp,
    vmap_of_hessian,
    grad_of_vmap,
    jvp_of_vmap,
    jacrev_of_vmap,
)


@st.composite
def batch_axes(draw: Any, shapes: list[tuple[int, ...]]) -> tuple[int | None, ...]:
    """Where the batch lies in each input; some input has one."""
    sure = draw(st.integers(0, len(shapes) - 1))
    places = [st.integers(0, len(shape)) for shape in shapes]
    return tuple(
        draw(place if index == sure else st.none() | place) for index, place in enumerate(places)
    )


def point_of(program: Program, axes: tuple[int | None, ...], seed: int) -> Point:
    """Numbers to work with, as numpy arrays."""
    normal = np.random.default_rng(seed).standard_normal
    inputs = tuple(np.asarray(normal(shape)) for shape in program.shapes)
    outputs = moving(program.function(*(torch.from_numpy(x) for x in inputs)))
    sizes = [tuple(output.shape) for output in outputs]
    batched = tuple(
        x if axis is None else np.asarray(normal((*x.shape[:axis], BATCH, *x.shape[axis:])))
        for x, axis in zip(inputs, axes, strict=True)
    )
    return Point(
        axes,
        inputs,
        tuple(np.asarray(normal(x.shape)) for x in inputs),
        tuple(np.asarray(normal(size)) for size in sizes),
        batched,
        tuple(np.asarray(normal((BATCH, *size))) for size in sizes),
    )


def on_side(point: Point, convert: Callable[[Any], Any]) -> Point:
    parts = (
        point.inputs,
        point.tangents,
        point.weights,
        point.batched_inputs,
        point.batched_weights,
    )
    return Point(point.axes, *(tuple(convert(array) for array in part) for part in parts))


def check(program: Program, name: str, axes: tuple[int | None, ...], seed: int, jit: bool) -> None:
    transformation = next(check for check in CHECKS if check.__name__ == name)
    numbers = point_of(program, axes, seed)
    try:
        with warnings.catch_warnings():
            # Torch's formulas for forward mode are compiled by torch.jit, which is deprecated.
            warnings.simplefilter("ignore")
            wanted = transformation(TORCH, program.reference, on_side(numbers, torch.tensor))
    except (RuntimeError, IndexError) as error:
        event(f"torch.func cannot: {name}")
        note(f"{name}: torch.func cannot: {error}")
        return
    wrapped = jax_callable(program.function)
    with jax.enable_x64(True):
        at = on_side(numbers, jnp.asarray)

        def run(inputs: Any, batched: Any) -> Any:
            return transformation(
                JAX,
                wrapped,
                Point(axes, inputs, at.tangents, at.weights, batched, at.batched_weights),
            )

        found = (jax.jit(run) if jit else run)(at.inputs, at.batched_inputs)
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(ours) == len(theirs)
    for mine, tensor in zip(ours, theirs, strict=True):
        reference = tensor.detach().numpy(force=True)
        assert (mine.shape, mine.dtype) == (reference.shape, reference.dtype)
        # What is drawn may be badly conditioned.
        assert_close(mine, reference, factor=1000, scale=1, label=name)


@st.composite
def cases(draw: Any) -> tuple[Program, list[str], tuple[int | None, ...], str | None, int]:
    """A program, some transformations, where the batch lies, which one is jitted, a seed."""
    program = draw(programs())
    names = [check.__name__ for check in CHECKS]
    asked = draw(st.lists(st.sampled_from(names), min_size=4, max_size=4, unique=True))
    axes = draw(batch_axes(program.shapes))
    return program, asked, axes, draw(st.sampled_from(asked)), draw(st.integers(0, 999))


@settings(max_examples=examples(30))
@given(case=cases())
def test_random_programs(case):
    program, names, axes, jitted, seed = case
    for name in names:
        check(program, name, axes, seed, jit=name == jitted)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_forward_mode_of_a_function_that_torch_cannot_batch(jit):
    """Called one by one, its results have no batch axis where only tangents have one."""

    def looks_at_values(x):
        return x.sin() if x.sum().item() > 0 else x * 2

    wrapped = jax_callable(looks_at_values)
    x = jnp.arange(3.0)
    wrapped(x)  # Planned with values.
    jacobian = jax.jacfwd(wrapped)
    hessian = jax.hessian(lambda x: wrapped(x).sum())
    jacobian, hessian = (jax.jit(jacobian), jax.jit(hessian)) if jit else (jacobian, hessian)
    assert_close(jacobian(x), np.diag(np.cos(x)))
    assert_close(hessian(x), -np.diag(np.sin(x)))


def test_warnings_as_errors_change_nothing(run_python):
    """Torch compiles formulas at the first forward derivative of a process, and warns."""
    script = """
import warnings
import jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable

norm = jax_callable(lambda x: torch.nn.functional.layer_norm(x, (3,)).logsumexp(0))
warnings.simplefilter("error")
jax.jvp(norm, (jnp.arange(3.0),), (jnp.ones(3),))
print(norm.explain(jnp.arange(3.0)))
"""
    printed = run_python(script)
    assert "torch.func.jvp" in printed
    assert "not torch.func.jvp" not in printed
