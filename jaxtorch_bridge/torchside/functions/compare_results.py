"""Whether two runs gave the same, up to rounding."""

from __future__ import annotations

import torch

from ...tolerances import tolerance_of


def difference(result: torch.Tensor, wanted: torch.Tensor) -> str | None:
    """How they differ, to follow the words that they do; None if they agree up to rounding."""
    if (result.shape, result.dtype) == (wanted.shape, wanted.dtype) and _agree(result, wanted):
        return None
    return _words(result, wanted)


def _agree(result: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether values of the same shape differ by no more than sums in another order do."""
    if not (result.is_floating_point() or result.is_complex()):
        return torch.equal(result, wanted)
    size = _wide(wanted).abs()
    # One infinite value would allow any difference in all others.
    size = size[size.isfinite()]
    greatest = float(size.max()) if size.numel() else 0.0
    tolerance = tolerance_of(str(wanted.dtype).removeprefix("torch."))
    return bool((_gaps(result, wanted) <= tolerance * greatest).all())


def _gaps(result: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far apart each two values are; infinitely far where only one is a number."""
    # In double precision, so that the difference itself is exact enough.
    a, b = _wide(result), _wide(wanted)
    gaps = (a - b).abs().nan_to_num(nan=torch.inf)
    return gaps.masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _words(result: torch.Tensor, wanted: torch.Tensor) -> str:
    if result.dtype != wanted.dtype:
        return f": {result.dtype} in place of {wanted.dtype}"
    if result.shape != wanted.shape:
        return f": {list(result.shape)} in place of {list(wanted.shape)}"
    if result.dtype == torch.bool:
        return f" in {int((result ^ wanted).sum())} of {result.numel()} elements"
    gaps = torch.atleast_1d(_gaps(result, wanted))
    gaps = gaps.reshape(len(gaps), -1).amax(1)
    worst = int(gaps.argmax())
    return f" by up to {float(gaps[worst]):.3g} (in element {worst} of {len(gaps)})"
