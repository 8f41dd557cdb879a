"""Small real runs: values against torch, derivatives, batches and shards."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch

from ...calling.jax_callable import JaxCallable
from ...calling.pytrees import trees
from ...errors import BatchingError, ShardingError, SpecMismatchError
from ...testing import check_batching, check_sharding
from ...testing.examples import gaps
from . import problems
from .both_sides import Run, Surroundings, as_jax, run_of
from .calls import by_position
from .cases import Case
from .gradients import compare_gradients
from .named_function import Subject
from .planned_transforms import Promises
from .shards import PARTS


def try_values(subject: Subject, case: Case) -> tuple[Promises, bool]:
    """Run one call for real, eagerly and under ``jit``, and compare with torch.

    Returns:
        What was found, and whether values were compared: not those of random functions.
    """
    found = Promises()
    # A list, which the guarded step can write to even if it fails later.
    compared = [False]
    with Surroundings(subject):
        expected = "a function that runs on made-up values"
        step = functools.partial(_compare_values, run_of(subject, case), found, compared)
        _guarded(subject, case, found, step, expected)
    return found, compared[0]


def try_transforms(subject: Subject, case: Case) -> Promises:
    """Compare gradients and batches of one call with what they must be."""
    found = Promises()
    with Surroundings(subject):
        run = run_of(subject, case)
        args, kwargs = run.jax_arguments()
        # With values, so that what looks at them can be planned as well.
        planned = subject.callable._planned(args, kwargs)
        if planned.plan.inference.random:
            found.remarks.append(("numeric", "draws random numbers, so values are not compared"))
            return found
        if subject.spec.vjp_depth != 0 and not planned.plan.derivative.startswith("none"):
            expected = "a gradient, or `vjp_depth: 0`"
            step = functools.partial(compare_gradients, run, planned, found)
            _guarded(subject, case, found, step, expected)
        if run.arrays:
            expected = "a function that can be batched"
            _guarded(subject, case, found, lambda: _compare_batches(run, found), expected)
    return found


def try_shards(subject: Subject, case: Case) -> Promises:
    """Compare a call that can be cut in two along every mesh axis with its shards."""
    found = Promises()
    with Surroundings(subject):
        step = functools.partial(_compare_shards, run_of(subject, case), found)
        _guarded(subject, case, found, step, "a function that can be called on shards")
    return found


def _guarded(
    subject: Subject, case: Case, found: Promises, step: Callable[[], None], expected: str
) -> None:
    """Run a step; what fails becomes a problem."""
    spec, words = subject.spec, case.words(subject.spec)
    try:
        step()
    except SpecMismatchError as error:
        found.problems.append(problems.of_mismatch(spec, error, words))
    except BatchingError as error:
        same = "batches that give what single calls give"
        text = problems.first_line(error)
        found.problems.append(problems.problem_at(spec, "vmap_method", same, text))
    except ShardingError as error:
        same = "shards that give what whole arrays give"
        text = problems.first_line(error)
        found.problems.append(problems.problem_at(spec, "sharding", same, text))
    except Exception as error:
        text = f"{problems.first_line(error)}, with {words}"
        found.problems.append(problems.problem_at(spec, "function", expected, text))


def _compare_values(run: Run, found: Promises, compared: list[bool]) -> None:
    spec = run.subject.spec
    args, kwargs = run.jax_arguments()
    # The call first: it plans a function that looks at values by running it.
    eager = jax.tree.leaves(_flat(run.subject.callable(*args, **kwargs)))
    planned = run.subject.callable._planned(args, kwargs)
    if planned.plan.inference.random:
        return
    compared[0] = True
    with torch.no_grad():
        wanted = run.torch_result()
    ways = [("a call", eager)]
    if planned.plan.inference.traced:
        leaves, structure = jax.tree.flatten((args, kwargs))
        is_array = [isinstance(leaf, jax.Array) for leaf in leaves]

        def call(arrays: Sequence[Any]) -> Any:
            moved = iter(arrays)
            flat = [
                next(moved) if one else leaf for one, leaf in zip(is_array, leaves, strict=True)
            ]
            again, keywords = jax.tree.unflatten(structure, flat)
            return _flat(run.subject.callable(*again, **keywords))

        arrays = [leaf for one, leaf in zip(is_array, leaves, strict=True) if one]
        ways.append(("a call under jit", jax.tree.leaves(jax.jit(call)(arrays))))
    for way, results in ways:
        for sig, result, tensor in zip(planned.plan.outputs, results, wanted, strict=True):
            difference = float(gaps(result, as_jax(tensor)).max(initial=0.0))
            if difference:
                expected = f"{way} to give what torch gives"
                text = f"`{sig.path}` off by {difference:.3g}, with {run.case.words(spec)}"
                found.problems.append(problems.problem_at(spec, "outputs", expected, text))
                return


def _flat(result: Any) -> list[Any]:
    return trees.flatten(result)[0]


def _positional(run: Run) -> tuple[Callable[..., Any], list[Any]]:
    """The function of its inputs alone, in the contract's order, and their values."""
    function, names = run.subject.function, list(run.subject.spec.inputs)
    static = dict(run.case.static)

    @functools.wraps(function)
    def call(*inputs: Any) -> Any:
        values = {
            name: value for name, value in zip(names, inputs, strict=True) if value is not None
        }
        args, kwargs = by_position(function, {**values, **static})
        return function(*args, **kwargs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    # The bridge names arrays by these parameters, and the contract knows them by those names.
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    args, kwargs = run.jax_arguments()
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    return call, [bound.get(name) for name in names]


def _compare_batches(run: Run, found: Promises) -> None:
    call, inputs = _positional(run)
    spec = run.subject.spec
    check_batching(JaxCallable(call, spec), *inputs, size=2)
    found.remarks.append(("numeric", "batches give what single calls give"))


def _compare_shards(run: Run, found: Promises) -> None:
    spec = run.subject.spec
    axes = tuple(dict.fromkeys(spec.sharding.values()))
    needed = PARTS ** len(axes)
    devices = jax.devices("cpu")
    if len(devices) < needed:
        words = f"shards not compared: that needs {needed} devices, and here are {len(devices)}"
        found.remarks.append(("numeric", words))
        return
    mesh = jax.sharding.Mesh(np.array(devices[:needed]).reshape((PARTS,) * len(axes)), axes)
    call, inputs = _positional(run)
    check_sharding(JaxCallable(call, spec), mesh, *inputs)
    found.remarks.append(("numeric", f"shards on {needed} devices give what whole arrays give"))
