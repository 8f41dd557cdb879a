"""The plan of one call, with its derivatives, batches and shards, as plain data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ...calling.call_planner import Planned
from ...errors import BridgeWarning, DifferentiationError
from ...jaxside.inlined.coverage import coverage_of
from ...planner.array_signature import ArraySig
from ...planner.explain import BACKEND_WORDS
from ...planner.unenforced import not_acted_on
from ...spec.model import CallableSpec
from ...torchside.derive.linear_part import Linearized
from ...torchside.op.torch_op import TorchOp
from ..check.cases import Case
from ..check.named_function import Subject
from ..check.planned_transforms import derivatives_of, plan_of
from ..check.shards import placement_of

# What an outline says of a `Coverage`, field by field.
OPERATIONS = ("operations", "operations_by_torch", "islands")


def outline_of(
    subject: Subject, case: Case, *, batch: int = 2, mesh: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """What is decided about one call.

    Args:
        subject: The function and its contract.
        case: Sizes and choices.
        batch: The size of the batch to look at under ``vmap``.
        mesh: Sizes of mesh axes, to cut the call into shards; None: show what the contract says.

    Raises:
        BridgeError: The call does not fit the contract, or cannot be planned.
        ShardingError: It cannot be cut so.
    """
    spec = subject.spec
    with warnings.catch_warnings():
        # What a caller would be warned of stands in the outline.
        warnings.simplefilter("ignore", BridgeWarning)
        shards = _shards(spec, case, mesh)
        planned = plan_of(subject, case)
        plan, op = planned.plan, planned.op
        return {
            "contract": spec.label,
            "source": spec.where(""),
            "function": spec.function,
            "key": plan.key,
            "sizes": dict(plan.sizes),
            "inputs": [_array(sig) for sig in plan.inputs],
            "static": dict(plan.static),
            "outputs": _outputs(planned),
            "found_by": plan.inference.words,
            "not_found_by": list(plan.inference.failures),
            "backend": _backend(spec, planned),
            "derivatives": _derivatives(spec, planned),
            "batching": _batching(spec, op, batch),
            "sharding": shards,
            "concurrency": {"mode": plan.concurrency.mode, "why": plan.concurrency.reason},
            "notes": list(not_acted_on(spec)),
        }


def _array(sig: ArraySig) -> dict[str, Any]:
    return {
        "name": sig.path,
        "shape": list(sig.shape),
        "dtype": sig.dtype,
        "torch_dtype": sig.torch_dtype,
        "size_bytes": sig.size_bytes,
        "differentiable": sig.differentiable,
    }


def _outputs(planned: Planned) -> list[dict[str, Any]]:
    pairs = zip(planned.plan.outputs, planned.op.results, strict=True)
    return [
        {**_array(sig), "in_place": index in planned.op.into, "written": words}
        for index, (sig, words) in enumerate(pairs)
    ]


def _backend(spec: CallableSpec, planned: Planned) -> dict[str, Any]:
    name = planned.plan.backend
    asked = "as the contract leaves it open" if spec.execution.backend == "auto" else "as asked"
    found: dict[str, Any] = {"name": name, "why": f"{BACKEND_WORDS[name]}; {asked}"}
    if planned.op.recording.asked:
        found["cuda_graph"] = planned.op.recording.words
    return found | operations_of(planned.op)


def operations_of(op: TorchOp) -> dict[str, Any]:
    """Of an op that XLA runs: how many operations it has, and which of them torch runs."""
    if op.aten is None:
        return {}
    found = coverage_of(op)
    values = (found.operations, found.by_torch, list(found.islands))
    return dict(zip(OPERATIONS, values, strict=True))


def _derivatives(spec: CallableSpec, planned: Planned) -> list[dict[str, Any]]:
    if planned.plan.derivative.startswith("none"):
        reason = planned.plan.derivative.partition(": ")[2]
        return [{"order": 1, "engine": "none", "why": [reason]}]
    return [
        {"order": order, **_derivative(one)}
        for order, one in derivatives_of(planned.op, spec.vjp_depth)
    ]


def _derivative(one: Linearized | DifferentiationError) -> dict[str, Any]:
    if isinstance(one, DifferentiationError):
        return {"engine": "none", "why": [str(one).splitlines()[0]]}
    return {
        "engine": one.engine,
        "by": [one.op.inputs[index].path for index in one.grad_inputs],
        "residual_bytes": one.residual_bytes,
        "residuals": [_array(sig) for sig in one.residuals],
        "tape_bytes": one.tape_bytes,
        "words": one.words[0].partition(": ")[2],
        "why": [*one.failures, *one.refused.values()],
        **({} if one.engine == "zero" else operations_of(_pullback(one))),
    }


def _pullback(one: Linearized) -> TorchOp:
    return one.linear_call(True, one.grad_inputs, one.diff_outputs).op


def _batching(spec: CallableSpec, op: TorchOp, size: int) -> dict[str, Any]:
    if not op.inputs:
        return {"method": spec.vmap_method, "size": size, "one_call": False, "words": "no input"}
    batched = op.family.batched(op, size, (0,) * len(op.inputs))
    words = "; ".join(line.partition(": ")[2] for line in batched.words)
    return {
        "method": spec.vmap_method,
        "size": size,
        "one_call": batched.op is not None,
        "words": words,
    }


def _shards(spec: CallableSpec, case: Case, mesh: Mapping[str, int] | None) -> list[dict[str, Any]]:
    placement = None if mesh is None else placement_of(spec, case, mesh)
    counts = {} if placement is None else {name: count for name, _, count in placement.axes}
    sizes = dict(case.sizes)
    return [
        {
            "dimension": name,
            "mesh_axis": axis,
            "shards": counts.get(name),
            "size_of_shard": sizes[name] // counts[name] if name in counts else None,
        }
        for name, axis in spec.sharding.items()
    ]
