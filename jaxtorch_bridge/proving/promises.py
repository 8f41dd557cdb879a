"""What a contract's derivatives, batches and shards will really be, without running anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax

from ..errors import BatchingError, BridgeWarning, DifferentiationError, ShardingError, SpecProblem
from ..planner.limits import not_acted_on
from ..planner.sharding import place_inputs, place_outputs
from ..planning import Planned
from ..spec.model import CallableSpec
from ..torchside.op import TorchOp
from . import problems
from .calls import arguments_of
from .cases import Case
from .sizes import Sizes, SizeSearch
from .subjects import Subject

# Without a `vjp_depth` every order is allowed; beyond the second they are made alike.
_ORDERS = 2
_MOST_ORDERS = 3
_BATCH = 3
PARTS = 2


@dataclass
class Promises:
    """What was found out.

    Attributes:
        remarks: (subject, words): what will happen.
        problems: What cannot.
    """

    remarks: list[tuple[str, str]] = field(default_factory=list)
    problems: list[SpecProblem] = field(default_factory=list)


def promises_of(subject: Subject, case: Case) -> Promises:
    """What JAX will do with the function, in the call ``case`` that agrees with the contract."""
    found = Promises()
    with warnings.catch_warnings():
        # What a caller would be warned of is said here.
        warnings.simplefilter("ignore", BridgeWarning)
        planned = plan_of(subject, case)
        _derivatives(subject.spec, planned, found)
        _batches(subject.spec, planned.op, found)
    found.remarks.append(("concurrency", str(planned.plan.concurrency)))
    found.remarks += [("note", note) for note in not_acted_on(subject.spec)]
    return found


def plan_of(subject: Subject, case: Case) -> Planned:
    """Plan and op of a call, as JAX would have them."""
    args, kwargs = arguments_of(
        subject, case, lambda _, shape, dtype: jax.ShapeDtypeStruct(shape, jax.numpy.dtype(dtype))
    )
    return subject.callable._planned(args, kwargs)


def _derivatives(spec: CallableSpec, planned: Planned, found: Promises) -> None:
    op, depth = planned.op, spec.vjp_depth
    if planned.plan.derivative.startswith("none"):
        found.remarks.append(("gradient", planned.plan.derivative))
        return
    if depth == 0:
        found.remarks.append(("gradient", "none: the contract says `vjp_depth: 0`"))
        return
    for order in range(1, min(_ORDERS if depth is None else depth, _MOST_ORDERS) + 1):
        try:
            lines, following = _one_order(op, order)
        except DifferentiationError as error:
            _refused(spec, order, error, found)
            return
        found.remarks += [("gradient" if order == 1 else f"order {order}", one) for one in lines]
        if following is None:
            return
        op = following


def _one_order(op: TorchOp, order: int) -> tuple[list[str], TorchOp | None]:
    """Words on the derivative of ``op``, and its pullback as an op; None if it is zero."""
    wrt = tuple(i for i, sig in enumerate(op.inputs) if sig.differentiable)
    if order > 1:
        # Cotangents come behind the function's own inputs; by them it is linear.
        assert op.source is not None
        wrt = tuple(i for i in wrt if i < op.source.primal_count)
    linearized = op.linearize(wrt)
    lines = [line.strip() for line in linearized.words]
    if linearized.rung == "zero":
        return lines, None
    ins, outs = linearized.grad_inputs, linearized.diff_outputs
    linearized.kernel(True, ins, outs)
    left_out = [op.inputs[i].path for i in wrt if i not in ins]
    if left_out and order == 1:
        lines.append(f"zero by {', '.join(left_out)}: no output depends on them")
    return lines, linearized.function(True, ins, outs).op


def _refused(spec: CallableSpec, order: int, error: DifferentiationError, found: Promises) -> None:
    text = str(error).splitlines()[0]
    if order > 1 and spec.vjp_depth is None:
        found.remarks.append((f"order {order}", f"not available: {text}"))
        return
    if "residuals: save" in text:
        path, expected = "residuals", "residuals that can be saved"
    elif spec.vjp_depth is not None:
        path, expected = "vjp_depth", f"derivatives of order {order}"
    else:
        path, expected = "outputs", "a derivative, or `vjp_depth: 0`"
    found.problems.append(problems.problem_at(spec, path, expected, text))


def _batches(spec: CallableSpec, op: TorchOp, found: Promises) -> None:
    if not op.inputs:
        return
    try:
        batched = op.batched(_BATCH, (0,) * len(op.inputs))
    except BatchingError as error:
        expected = "a function that works along leading axes"
        text = str(error).splitlines()[0]
        found.problems.append(problems.problem_at(spec, "vmap_method", expected, text))
        return
    # The number stands for the size of the batch, which says nothing here.
    words = [line.partition(": ")[2] for line in batched.words]
    found.remarks += [("vmap", f"{spec.vmap_method}: {one}") for one in words]


def shards_of(
    spec: CallableSpec, search: SizeSearch, case: Case
) -> tuple[Promises, Case | None, Case | None]:
    """Two shards along every mesh axis of the contract.

    Returns:
        What is known of them; a call that can be cut so, and the call that each shard gets.
    """
    found = Promises()
    sizes = _even_sizes(spec, search, dict(case.sizes))
    if sizes is None:
        words = "not looked at: found no sizes whose halves meet the constraints as well"
        found.remarks.append(("sharding", words))
        return found, None, None
    whole = case.with_sizes(sizes)
    mesh = dict.fromkeys(spec.sharding.values(), PARTS)
    arrays, layouts = zip(*_sharded_inputs(spec, whole), strict=True)
    try:
        placement = place_inputs(spec.label, spec, arrays, layouts, mesh)
        assert placement is not None  # a dimension that is sharded stands in some input
        ranks = [_rank(leaf.shape, case) for _, leaf in spec.output_leaves()]
        place_outputs(spec.label, spec, placement, spec.output_leaves(), ranks)
    except ShardingError as error:
        expected = "dimensions along which calls can be cut"
        found.problems.append(problems.problem_at(spec, "sharding", expected, str(error)))
        return found, None, None
    found.remarks += [
        ("sharding", f"`{name}` along mesh axis {axis}: one call for each shard")
        for name, axis, _ in placement.axes
    ]
    return found, whole, whole.with_sizes(_halves(spec, sizes))


def _even_sizes(spec: CallableSpec, search: SizeSearch, base: Sizes) -> Sizes | None:
    for factor in (2, 4, 8, 16, 64):
        preferred = {
            name: (factor * size if name in spec.sharding else size,) for name, size in base.items()
        }
        sizes = search.find(preferred)
        if sizes is None:
            continue
        even = all(sizes[name] % PARTS == 0 for name in spec.sharding)
        if even and search.fits(_halves(spec, sizes)):
            return sizes
    return None


def _halves(spec: CallableSpec, sizes: Sizes) -> Sizes:
    return {name: size // PARTS if name in spec.sharding else size for name, size in sizes.items()}


def _sharded_inputs(spec: CallableSpec, case: Case) -> Iterator[tuple[Any, Any]]:
    from ..planner.build import ArrayArgument
    from ..spec.shapes import Name
    from ..spec.sizes import aligned

    for path, leaf in spec.input_leaves():
        shape = case.shape_of(leaf.shape)
        layout: list[tuple[str, ...]] = [()] * len(shape)
        for dimension, axis, _ in aligned(leaf.shape, shape):
            if isinstance(dimension, Name) and dimension.name in spec.sharding:
                layout[axis] = (spec.sharding[dimension.name],)
        yield (
            ArrayArgument(".".join(path), path, shape, case.dtype_of(spec, path, leaf)),
            tuple(layout),
        )


def _rank(shape: Any, case: Case) -> int:
    return int(shape.least_rank) + (len(case.rest) if shape.rest_axis is not None else 0)
