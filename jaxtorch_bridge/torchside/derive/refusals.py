"""What must not be differentiated, told before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DifferentiationError
from ..functions.source import Source
from ..functions.unrecorded_backward import not_differentiable
from ..op.torch_op import TorchOp


def differentiable_source(op: TorchOp, wrt: Sequence[int]) -> Source:
    """What to differentiate.

    Raises:
        DifferentiationError: The op has no derivative, the contract forbids it, or a backward
            inside has none.
    """
    source = op.source
    if source is None:
        raise DifferentiationError(f"{op.label}: this part of a derivative has none of its own.")
    _refuse_beyond_depth(source)
    if source.refuse_writes is not None:
        source.refuse_writes(source, wrt)
    if source.once_differentiable:
        raise not_differentiable(source.label)
    return source


def _refuse_beyond_depth(source: Source) -> None:
    """Object to a derivative of higher order than the contract or the caller allows.

    Raises:
        DifferentiationError: Names the contract and the line, or the caller's own limit.
    """
    depth = source.terms.depth
    if depth is None or source.order < depth:
        return
    where = f" [{source.terms.depth_at}]" if source.terms.depth_at else ""
    allowed = "no derivative" if depth == 0 else f"derivatives up to order {depth}"
    reason, name = f"the contract says `vjp_depth: {depth}`", "vjp_depth"
    if not source.terms.depth_by_contract:
        reason, name = f"it was wrapped with depth={depth}", "depth"
    raise DifferentiationError(
        f"{source.label}: expected {allowed}, since {reason}; got "
        f"one of order {source.order + 1}. Raise {name}, or use jax.lax.stop_gradient.{where}"
    )
