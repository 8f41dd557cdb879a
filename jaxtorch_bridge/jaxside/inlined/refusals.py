"""What is said of operations that XLA cannot run, where torch cannot run them either."""

from __future__ import annotations

from ...errors import PlanningError
from ...planner.aten_program import READS_TENSOR, Step
from ..op_protocol import OpLike

_WIDE = ("float64", "complex128")
_HELD = "pass it as an argument, or take the module by from_module, whose parameters are arguments"


def island_words(step: Step, reason: str) -> str:
    """An operation, where the user's code has it, and why it is none of JAX's."""
    if step.op == READS_TENSOR:
        (sig,) = step.results
        return f"a tensor that it closes over ({sig.dtype}{list(sig.shape)}): {_HELD}"
    return f"{step.words}: {reason}"


def island_error(op: OpLike, where: str, words: str) -> PlanningError:
    """For an operation that would have to be a call of torch, or that not even torch may run."""
    needed = f", for {where}" if where else ""
    cure = "Write it by other operations, or say `eager`"
    if where:
        cure += ", `graph`, or `xla` with islands where torch runs (a CPU or a CUDA device)"
    end = "" if words.endswith(_HELD) else f" {cure}."
    return PlanningError(
        f"{op.label}: expected operations that JAX has as well{needed}; got {words}.{end}"
    )


def wide_float_error(op: OpLike) -> PlanningError | None:
    """For a program that computes in dtypes which a TPU lacks; None for others."""
    program = op.aten
    assert program is not None
    for sig in program.inputs:
        if sig.dtype in _WIDE:
            return _wide(op, f"an argument of {sig.dtype}")
    for step in program.steps:
        for sig in step.results:
            if sig.dtype in _WIDE:
                return _wide(op, f"a result of {sig.dtype} of {step.words}")
    return None


def _wide(op: OpLike, what: str) -> PlanningError:
    return PlanningError(
        f"{op.label}: expected float32 and narrower, which a TPU has; got {what}. Cast to float32 "
        "before it."
    )
