"""From a function's own op to one that derives from it, by steps that a program holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..planner.op_steps import Step, Steps
from .derive.linear_part import Linearized
from .op.torch_op import TorchOp


class StepError(ValueError):
    """A step cannot be gone; the text says which."""


def replay(op: TorchOp, steps: Steps) -> TorchOp:
    """The op that derives from ``op`` by these steps.

    Raises:
        StepError: They are not those of an op of this function.
        BridgeError: What they ask for cannot be derived here.
    """
    found: TorchOp | Linearized = op
    for step in steps:
        found = (
            _of_derivative(found, step) if isinstance(found, Linearized) else _of_op(found, step)
        )
    if isinstance(found, Linearized):
        raise StepError("the last step leads to a derivative, and not to an op")
    return found


def _of_op(op: TorchOp, step: Step) -> TorchOp | Linearized:
    name, *parts = step
    made: Any
    if name == "batched":
        size, dims, loop = parts
        if len(dims) != len(op.inputs):
            raise StepError(f"`batched` has {len(dims)} axes for {len(op.inputs)} inputs")
        batched = op.family.batched(op, size, dims, loop=loop)
        made, failure = batched.op, batched.failure
    else:
        _within(name, parts[0] if parts else (), len(op.inputs))
        if name == "linearize":
            return op.family.linearize(op, *parts)  # type: ignore[no-any-return]
        if name == "transposed":
            wrt, outs = parts
            _within(name, outs, len(op.outputs))
            return op.family.transposed(op, wrt, outs, None)  # type: ignore[no-any-return]
        if name != "pushforward":
            raise StepError(f"`{name}` is a step of a derivative, and not of an op")
        made, failure = op.family.pushforward(op, *parts).op, "no output depends on these inputs"
    if made is None:
        raise StepError(f"`{name}` gives no op here: {failure}")
    return made  # type: ignore[no-any-return]


def _of_derivative(linearized: Linearized, step: Step) -> TorchOp:
    name, *parts = step
    if name == "forward":
        return linearized.forward
    if name not in ("linear_call", "function"):
        raise StepError(f"`{name}` is a step of an op, and not of a derivative")
    transposed, ins, outs = parts
    # What JAX asks for is always a part of these.
    if not (set(ins) <= set(linearized.grad_inputs) and set(outs) <= set(linearized.diff_outputs)):
        raise StepError(f"`{name}` asks for what does not depend on each other")
    return getattr(linearized, name)(transposed, ins, outs).op  # type: ignore[no-any-return]


def _within(name: str, indices: Sequence[int], count: int) -> None:
    if any(index >= count for index in indices):
        raise StepError(f"`{name}` is by number {max(indices)} of {count}")
