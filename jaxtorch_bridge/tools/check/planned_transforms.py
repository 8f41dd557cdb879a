"""What a contract's derivatives, batches and shards will really be, without running anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax

from ...calling.call_planner import Planned
from ...errors import BatchingError, BridgeWarning, DifferentiationError, PlanningError, SpecProblem
from ...jaxside.inlined.coverage import coverage_of
from ...planner.unenforced import not_acted_on
from ...spec.model import CallableSpec
from ...torchside.derive.linear_part import Linearized
from ...torchside.derive.refused_outputs import refuse_all
from ...torchside.op.torch_op import TorchOp
from . import problems
from .calls import arguments_of, with_key
from .cases import Case
from .named_function import Subject

# Without a `vjp_depth` every order is allowed; beyond the second they are made alike.
_ORDERS = 2
_MOST_ORDERS = 3
_BATCH = 3


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
        try:
            planned = plan_of(subject, case)
        except PlanningError as error:
            expected = "a function that the backend can run"
            text = str(error).splitlines()[0]
            path = "execution.backend"
            found.problems.append(problems.problem_at(subject.spec, path, expected, text))
            return found
        if planned.op.aten is not None:
            words = coverage_of(planned.op).words
            found.remarks += [("backend", line) for line in words]
        _derivatives(subject.spec, planned, found)
        _batches(subject.spec, planned.op, found)
    found.remarks.append(("concurrency", str(planned.plan.concurrency)))
    found.remarks += [("note", note) for note in not_acted_on(subject.spec)]
    return found


def plan_of(subject: Subject, case: Case) -> Planned:
    """Plan and op of a call, as JAX would have them."""
    arguments = arguments_of(
        subject, case, lambda _, shape, dtype: jax.ShapeDtypeStruct(shape, jax.numpy.dtype(dtype))
    )
    args, kwargs = with_key(subject, arguments)
    return subject.callable._planned(args, kwargs)


def _derivatives(spec: CallableSpec, planned: Planned, found: Promises) -> None:
    if planned.plan.derivative.startswith("none"):
        found.remarks.append(("gradient", planned.plan.derivative))
        return
    for order, one in derivatives_of(planned.op, spec.vjp_depth):
        if isinstance(one, DifferentiationError):
            _refused(spec, order, one, found)
            return
        lines = [line.strip() for line in one.words]
        if order == 1 and one.engine != "zero":
            left_out = [planned.op.inputs[i].path for i in one.wrt if i not in one.grad_inputs]
            if left_out:
                lines.append(f"zero by {', '.join(left_out)}: no output depends on them")
        subject = "gradient" if order == 1 else f"order {order}"
        found.remarks += [(subject, line) for line in lines]


def derivatives_of(
    op: TorchOp, depth: int | None
) -> Iterator[tuple[int, Linearized | DifferentiationError]]:
    """The pullback of ``op`` by all inputs that have a gradient, that one's pullback, and so on.

    Args:
        op: The function.
        depth: Up to which order; None: the second. At most the third.

    Yields:
        Each order with the derivative, or with why there is none; then nothing follows.
    """
    for order in range(1, min(_ORDERS if depth is None else depth, _MOST_ORDERS) + 1):
        try:
            linearized, following = _one_order(op, order)
        except DifferentiationError as error:
            yield order, error
            return
        yield order, linearized
        if following is None:
            return
        op = following


def _one_order(op: TorchOp, order: int) -> tuple[Linearized, TorchOp | None]:
    """The derivative of ``op``, and its pullback as an op; None if it is zero."""
    wrt = tuple(i for i, sig in enumerate(op.inputs) if sig.differentiable)
    if order > 1:
        # Cotangents come behind the function's own inputs; by them it is linear.
        assert op.fn is not None
        wrt = tuple(i for i in wrt if i < op.fn.primal_count)
    linearized = op.family.linearize(op, wrt)
    refuse_all(linearized.fn, wrt, linearized.refused)
    if linearized.engine == "zero":
        return linearized, None
    ins, outs = linearized.grad_inputs, linearized.diff_outputs
    # Made, since only then it shows whether it can be.
    linearized.linear_call(True, ins, outs)
    return linearized, linearized.function(True, ins, outs).op


def _refused(spec: CallableSpec, order: int, error: DifferentiationError, found: Promises) -> None:
    text = str(error).splitlines()[0]
    # Nobody asked for this order, so that it is no problem.
    if order > 1 and spec.vjp_depth is None:
        found.remarks.append((f"order {order}", f"not available: {text}"))
        return
    if spec.vjp_depth is not None:
        path, expected = "vjp_depth", f"derivatives of order {order}"
    else:
        path, expected = "outputs", "a derivative, or `vjp_depth: 0`"
    found.problems.append(problems.problem_at(spec, path, expected, text))


def _batches(spec: CallableSpec, op: TorchOp, found: Promises) -> None:
    if not op.inputs:
        return
    try:
        batched = op.family.batched(op, _BATCH, (0,) * len(op.inputs))
    except BatchingError as error:
        expected = "a function that works along leading axes"
        text = str(error).splitlines()[0]
        found.problems.append(problems.problem_at(spec, "vmap_method", expected, text))
        return
    # The number stands for the size of the batch, which says nothing here.
    words = [line.partition(": ")[2] for line in batched.words]
    found.remarks += [("vmap", f"{spec.vmap_method}: {one}") for one in words]
