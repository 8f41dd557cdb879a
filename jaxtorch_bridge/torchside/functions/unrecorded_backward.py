"""Backward functions that torch did not record, found before they count as constant.

A custom backward may leave torch (numpy) or be marked ``once_differentiable``. What it returns
then carries no way back, and torch takes its own derivative to be zero without a word. But a
backward is linear in its cotangents, so what is missing shows in a sum that must agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..._compat.torch.autograd_graph import hides_its_derivative, lacks_derivative
from ..._compat.torch.capture.tracing import evaluates_abstractly
from ...errors import DifferentiationError, LackingDerivativeError

# Relative to the terms of the sums that are compared; a hidden part is seldom smaller.
_TOLERANCE = {torch.float64: 1e-6, torch.complex128: 1e-6, torch.float32: 1e-3}
_TOLERANCE_OF_OTHERS = 5e-2


def refuse_lacking(label: str, outputs: Sequence[torch.Tensor]) -> None:
    """Object to what torch has no derivative of, or counts as constant.

    Raises:
        LackingDerivativeError: There is one on the way from the inputs.
    """
    if lacks_derivative(outputs):
        raise LackingDerivativeError(
            f"{label}: an operation inside has no derivative in torch (those of quantised layers "
            "have none), so its part of the gradient would be zero without a word. If that is "
            "meant, give it detach() of its input, or use jax.lax.stop_gradient."
        )


def refuse_marked(label: str, gradients: Sequence[torch.Tensor]) -> None:
    """Object to a backward that is marked ``once_differentiable``.

    Raises:
        DifferentiationError: There is one behind these gradients.
    """
    if hides_its_derivative(gradients):
        raise not_differentiable(label)


def refuse_missing(
    label: str,
    cotangents: Sequence[torch.Tensor],
    moved: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    tangents: Sequence[torch.Tensor],
) -> None:
    """Compare <cotangents, J tangents> with <J^T cotangents, tangents>, where there are values.

    Args:
        label: The callable's name, for messages.
        cotangents: Of the function.
        moved: J tangents, by differentiating the pullback.
        gradients: J^T cotangents.
        tangents: Of the function.

    Raises:
        DifferentiationError: They differ.
    """
    if evaluates_abstractly():
        return
    pairs = [*zip(cotangents, moved, strict=True)]
    others = [*zip(gradients, tangents, strict=True)]
    with torch.no_grad():
        # In double precision: the sums of many terms are compared. Real parts: more need not agree
        # where a function is not holomorphic.
        forth = [(a.detach().conj() * b.detach()).real.double().ravel() for a, b in pairs]
        back = [(a.detach().conj() * b.detach()).real.double().ravel() for a, b in others]
        scale = sum(float(part.abs().sum()) for part in (*forth, *back))
        difference = abs(
            sum(float(part.sum()) for part in forth) - sum(float(part.sum()) for part in back)
        )
    dtypes = [tensor.dtype for tensor in (*moved, *gradients)]
    # That of the coarsest dtype on the way.
    tolerance = max(_TOLERANCE.get(dtype, _TOLERANCE_OF_OTHERS) for dtype in dtypes)
    if difference > tolerance * scale:
        raise not_differentiable(label)


def nothing_recorded(label: str) -> DifferentiationError:
    """The error for a run that left torch, and whose results autograd knows nothing of."""
    return DifferentiationError(
        f"{label}: torch recorded no way from the inputs to any result (no result requires "
        "grad) of a function that leaves torch by numpy or DLPack, so the gradient would be zero "
        "without a word. If that is meant, use jax.lax.stop_gradient; otherwise compute with torch."
    )


def not_differentiable(label: str) -> DifferentiationError:
    """The error for a backward that has no derivative of its own."""
    return DifferentiationError(
        f"{label}: a backward inside is not differentiable (it is marked once_differentiable, "
        "computes outside of torch, or a hook changes gradients otherwise than linearly), so there "
        "is no forward-mode derivative and none of second order. Write that backward with torch "
        "operations."
    )
