"""The function of ``specs/attention.yaml``: attention over heads, sharded by batch and by head.

jaxtorch check --numeric specs/attention.yaml
"""

from __future__ import annotations

import torch


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention.

    Args:
        q: ``(batch, heads, seq, dim)``.
        k: ``(batch, heads, keys, dim)``.
        v: As ``k``.
        mask: ``(batch, keys)``, true where a key may be looked at.
        causal: Let no query look at keys behind its own place.

    Returns:
        ``(batch, heads, seq, dim)``; zeros for a query that may look at nothing.
    """
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
    if causal:
        allowed = allowed.tril()
    if mask is not None:
        allowed = allowed & mask[:, None, None, :]
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    # A softmax over nothing but -inf is NaN.
    return weights.nan_to_num(0.0) @ v
