"""The ways in which JAX may use a function, each beside what torch itself gives."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import torch

from comparing import assert_equal
from jaxtorch_bridge import DynamicSizeError, MutationError, jax_callable, t2j

from .comparison import comparison_of
from .outcome import (
    SIZES_FROM_VALUES,
    NothingToCompareError,
    Outcome,
    combined,
    outcome_of,
    words_of,
)
from .samples import Case, leaves
from .torch_alone import (
    Gradients,
    copies_of,
    detached,
    differentiable,
    draws,
    forward_mode,
    moved_of,
    pulled_back,
    results_of,
    weights_like,
)

WAYS = ("jit", "vjp", "jvp", "vmap", "in place")
# For a backend that computes by other code than torch's: values and gradients at edges.
EDGES = "edges"
# In the places of floats, one after the other: ties and both zeros among them.
_EDGE_VALUES = (
    *(float("nan"), 1.0, float("inf"), -0.0, 1.0, -float("inf"), 0.0, -1.0, 2.5, 0.0, -2.5),
    *(0.5, -0.0, 3.0, 1e-30, -0.5, 1e30),
)

MODES_DIFFER = "its forward mode and its gradients say different things"
# Their values are whatever stood in the memory.
_UNINITIALISED = frozenset(
    ["empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"]
)


def try_way(name: str, way: str, case: Case, wrap: Callable[..., Any] = jax_callable) -> Outcome:
    """What comes of one call in one way.

    Args:
        name: The entry's.
        way: One of `WAYS`, or `EDGES`.
        case: The call.
        wrap: What makes a JAX function of a torch function.
    """
    with warnings.catch_warnings(), jax.enable_x64(case.needs_x64):
        warnings.simplefilter("ignore")
        function = case.in_place if way == "in place" else case.call
        if function is not None and draws(function, case.tensors):
            way, values = "with a key" if way == "jit" else way, False
        else:
            values = name not in _UNINITIALISED
        outcome = _WAYS[way](case, wrap, values)
        if outcome.kind == "refused":
            return _way_round(outcome, way, case, wrap, values)
        return outcome


def _way_round(
    refusal: Outcome,
    way: str,
    case: Case,
    wrap: Callable[..., Any],
    values: bool,
) -> Outcome:
    """A refusal, unless what its message advises to do instead is not right."""
    if refusal.words.startswith(MutationError.__name__) and way != "in place":
        other = _WAYS[way](case, functools.partial(wrap, copies=("tensors",)), values)
    elif way == "jit" and _sizes_from_values(refusal):
        other = _eager(case, wrap, values)
    else:
        return refusal
    return refusal if other.kind == "right" else other


def _jit(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    call = wrap(case.call)

    def found() -> Any:
        return jax.jit(lambda *arrays: leaves(call(*arrays), jax.Array))(*_arrays(case.tensors))

    return outcome_of(lambda: results_of(case.call, case.tensors), found, comparison_of(values))


def _with_key(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    """For what draws random numbers: the same key gives the same ones."""
    call = wrap(case.call, random="key")

    def found() -> Any:
        drawing = jax.jit(lambda key, *arrays: leaves(call(*arrays, rng=key), jax.Array))
        key, arrays = jax.random.key(case.seed % 2**31), _arrays(case.tensors)
        assert_equal(drawing(key, *arrays), again := drawing(key, *arrays), label="same key")
        return again

    return outcome_of(lambda: results_of(case.call, case.tensors), found, comparison_of(values))


def _edges(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    """At infinities, NaN, ties and zeros: the call, and then its gradients."""
    if not any(tensor.is_floating_point() for tensor in case.tensors):
        return Outcome("nothing", "no floats")
    case = replace(case, tensors=tuple(map(_at_edges, range(len(case.tensors)), case.tensors)))
    outcomes = [_jit(case, wrap, values), _vjp(case, wrap, values)]
    return combined([one for one in outcomes if one.kind != "nothing"])


def _at_edges(place: int, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    # Each tensor begins elsewhere, so that other values meet.
    values = (_EDGE_VALUES * (1 + tensor.numel() // len(_EDGE_VALUES) + 1))[3 * place % 7 :]
    return torch.tensor(values[: tensor.numel()], dtype=tensor.dtype).reshape(tensor.shape)


def _eager(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    call = wrap(case.call)

    def found() -> Any:
        return leaves(call(*_arrays(case.tensors)), jax.Array)

    return outcome_of(lambda: results_of(case.call, case.tensors), found, comparison_of(values))


def _in_place(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    """The form that writes to its first argument, whose new value comes back."""
    function = case.in_place
    if function is None:
        return Outcome("nothing", "no form that writes in place")

    def expected() -> Any:
        given = copies_of(case.tensors)
        function(*given)
        return given[:1]

    def found() -> Any:
        call = wrap(function, mutates=("tensors.0",))
        return leaves(jax.jit(call)(*_arrays(case.tensors)), jax.Array)

    return outcome_of(expected, found, comparison_of(values))


def _vjp(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    call = wrap(case.reduced)

    def expected() -> Any:
        moved, results = differentiable(case)
        weights = weights_like(case, results)
        grads = pulled_back(results, moved, weights)
        return [*detached(results), *grads]

    def found() -> Any:
        results, pull = jax.vjp(_of_moved_arrays(case, call), *_arrays(moved_of(case)))
        weights = weights_like(case, [_like(result) for result in results])
        return [*results, *pull(list(_arrays(weights)))]

    return outcome_of(expected, found, comparison_of(values, together=True))


def _jvp(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    """Tangents, by torch's forward mode, or by the gradients that they have to agree with.

    Torch has no rule in forward mode for everything, and for operators that are made in Python it
    gives noughts without an error.
    """
    call = wrap(case.reduced)

    def found() -> tuple[Any, Any]:
        moved = moved_of(case)
        tangents = _arrays(weights_like(case, moved))
        return jax.jvp(_of_moved_arrays(case, call), _arrays(moved), tangents)

    def flat() -> list[Any]:
        results, pushed = found()
        return [*results, *pushed]

    comparison = comparison_of(values, together=True)
    try:
        gradients = Gradients(case)
    except NothingToCompareError as nothing:
        return Outcome("nothing", str(nothing))
    except Exception:
        # Where there are none, forward mode says why, or is all there is.
        return outcome_of(lambda: forward_mode(case), flat, comparison)
    expected: list[torch.Tensor] = []
    try:
        expected = forward_mode(case)
    except Exception as error:
        lacking: str | None = words_of(error)
    else:
        tangents = expected[len(expected) // 2 :]
        lacking = MODES_DIFFER if values and gradients.contradict(tangents) else None
    if lacking is None:
        return outcome_of(lambda: expected, flat, comparison)
    try:
        results, pushed = found()
    except Exception:
        return Outcome("torch", lacking)
    contradiction = gradients.contradict(pushed) if values else ""
    if contradiction:
        # A rule of torch's that is wrong is torch's affair; noughts instead of an error are not.
        of_torch = any(tangent.any() for tangent in expected[len(expected) // 2 :])
        as_torch = outcome_of(lambda: expected, lambda: [*results, *pushed], comparison)
        if of_torch and as_torch.kind == "right":
            return Outcome("torch", MODES_DIFFER)
        return Outcome("wrong", contradiction)
    return outcome_of(lambda: gradients.results, lambda: results, comparison_of(values))


def _vmap(case: Case, wrap: Callable[..., Any], values: bool) -> Outcome:
    call = wrap(case.call)
    elements = [case.tensors, *case.batch]

    def expected() -> Any:
        if not case.tensors:
            raise NothingToCompareError("no array")
        results = [results_of(case.call, element) for element in elements]
        if len({tuple(result.shape for result in each) for each in results}) > 1:
            raise NothingToCompareError("results of several sizes")
        return [torch.stack(parts) for parts in zip(*results, strict=True)]

    def found() -> Any:
        batched = jax.vmap(lambda *arrays: leaves(call(*arrays), jax.Array))
        return batched(*map(jnp.stack, zip(*map(_arrays, elements), strict=True)))

    return outcome_of(expected, found, comparison_of(values))


_WAYS = {
    "jit": _jit,
    "with a key": _with_key,
    "vjp": _vjp,
    "jvp": _jvp,
    "vmap": _vmap,
    "in place": _in_place,
    EDGES: _edges,
}


def _sizes_from_values(refusal: Outcome) -> bool:
    words = refusal.words
    return words.startswith(DynamicSizeError.__name__) or SIZES_FROM_VALUES in words


def _arrays(tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    # Copies: what JAX holds must not change, whatever torch does with a tensor later.
    return tuple(t2j(tensor) for tensor in copies_of(tensors))


def _of_moved_arrays(case: Case, call: Callable[..., Any]) -> Callable[..., Any]:
    """The function of the arrays that move alone, with what has derivatives of its results."""
    arrays = list(_arrays(case.tensors))

    def function(*moved: Any) -> list[Any]:
        given = list(arrays)
        for place, array in zip(case.moved, moved, strict=True):
            given[place] = array
        found = leaves(call(*given), jax.Array)
        return [array for array in found if jnp.issubdtype(array.dtype, jnp.inexact)]

    return function


def _like(array: Any) -> torch.Tensor:
    return torch.empty(array.shape, dtype=getattr(torch, str(array.dtype)))
