"""Operations by factorisations, as smaller ones that say all they do.

Tried on torch 2.13.0 and 2.14.1.

What determinants keep of their factorisation depends on how a matrix lies in memory: torch
factorises the transpose of one that is row-major, and its gradients count on it. Only where the
graph is traced does anybody know the strides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def decompositions() -> dict[Any, Callable[..., Any]]:
    """By operation. Torch 2.14 has no ``cholesky`` any more, but ``linalg_cholesky_ex`` alone."""
    named = {"_linalg_det": _det, "_linalg_slogdet": _slogdet, "cholesky": _cholesky}
    aten = torch.ops.aten
    return {
        getattr(aten, name).default: function
        for name, function in named.items()
        if hasattr(aten, name)
    }


def _factorised(matrix: Any) -> Any:
    """Factors, pivots and check."""
    turned = matrix.is_contiguous() and not matrix.is_complex()
    return torch.ops.aten.linalg_lu_factor_ex(matrix.mT if turned else matrix)


def _sign_of(pivots: Any) -> Any:
    """Of the permutation: each row that is exchanged with another turns it."""
    places = torch.arange(1, pivots.shape[-1] + 1, dtype=pivots.dtype, device=pivots.device)
    odd = (places != pivots).sum(-1) % 2 == 1
    return torch.where(odd, -1, 1)


def _det(matrix: Any) -> Any:
    factors, pivots, _ = _factorised(matrix)
    sign = _sign_of(pivots).to(factors.dtype)
    return sign * factors.diagonal(0, -2, -1).prod(-1), factors, pivots


def _slogdet(matrix: Any) -> Any:
    factors, pivots, _ = _factorised(matrix)
    diagonal = factors.diagonal(0, -2, -1)
    sign = _sign_of(pivots).to(factors.dtype)
    return diagonal.sgn().prod(-1) * sign, diagonal.abs().log().sum(-1), factors, pivots


def _cholesky(matrix: Any, upper: bool = False) -> Any:
    """With the check that its kernel makes."""
    factor, info = torch.ops.aten.linalg_cholesky_ex(matrix, upper=upper)
    torch.ops.aten._linalg_check_errors(info, "cholesky", is_matrix=matrix.ndim == 2)
    return factor
