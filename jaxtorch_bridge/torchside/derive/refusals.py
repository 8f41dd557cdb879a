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
        DifferentiationError: The op has no derivative, the contract forbids it, or the function
            hides its derivative from torch.
    """
    source = op.source
    if source is None:
        raise DifferentiationError(f"{op.label}: this part of a derivative has none of its own.")
    _refuse_beyond_depth(source)
    _refuse_hidden_derivative(source, wrt)
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


def _refuse_hidden_derivative(source: Source, wrt: Sequence[int]) -> None:
    """Object to a function whose inner ``autograd.grad`` hides the way to its results.

    Raises:
        DifferentiationError: Says what to pass.
    """
    if not source.inference.grads_inside:
        return
    where = f" [{source.terms.depth_at}]" if source.terms.depth_at else ""
    names = ", ".join(f"`{source.inputs[index].path}`" for index in wrt)
    raise DifferentiationError(
        f"{source.label}: cannot differentiate by {names}: the function calls "
        "torch.autograd.grad without create_graph=True, so torch takes what comes out as a "
        "constant and the gradient would be silently wrong. Pass create_graph=True inside, or "
        f"stop the gradient with jax.lax.stop_gradient.{where}"
    )
