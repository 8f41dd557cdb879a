"""What must not be differentiated, told before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DifferentiationError
from ..functions.tensor_function import TensorFunction
from ..functions.unrecorded_backward import not_differentiable
from ..op.torch_op import TorchOp


def differentiable_function(op: TorchOp, wrt: Sequence[int]) -> TensorFunction:
    """What to differentiate.

    Raises:
        DifferentiationError: The op has no derivative, the contract forbids it, or a backward
            inside has none.
    """
    fn = op.fn
    if fn is None:
        raise DifferentiationError(f"{op.label}: this part of a derivative has none of its own.")
    _refuse_beyond_depth(fn)
    if fn.refuse_writes is not None:
        fn.refuse_writes(fn, wrt)
    if fn.once_differentiable:
        raise not_differentiable(fn.label)
    return fn


def _refuse_beyond_depth(fn: TensorFunction) -> None:
    """Object to a derivative of higher order than the contract or the caller allows.

    Raises:
        DifferentiationError: Names the contract and the line, or the caller's own limit.
    """
    depth = fn.terms.depth
    if depth is None or fn.order < depth:
        return
    where = f" [{fn.terms.depth_at}]" if fn.terms.depth_at else ""
    allowed = "no derivative" if depth == 0 else f"derivatives up to order {depth}"
    reason, name = f"the contract says `vjp_depth: {depth}`", "vjp_depth"
    if not fn.terms.depth_by_contract:
        reason, name = f"it was wrapped with depth={depth}", "depth"
    raise DifferentiationError(
        f"{fn.label}: expected {allowed}, since {reason}; got "
        f"one of order {fn.order + 1}. Raise {name}, or use jax.lax.stop_gradient.{where}"
    )
