"""Fused attention in graphs. Tried on torch 2.11.0, 2.13.0 and 2.14.1; on CUDA with 2.11.0."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch.nn import functional

from .higher_order import CallMode

# Their kernels take elements for neighbours in memory, or refuse others, and only
# `scaled_dot_product_attention` itself, of which a batch makes these, sees to it that they are.
FUSED_ATTENTION = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_backward.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default,
)


def copy_columns(graph: Any, node: Any) -> None:
    """Give fused attention tensors in which the last axis is contiguous."""
    for argument in node.all_input_nodes:
        value = argument.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            continue
        # With one element there are no neighbours.
        if value.stride(-1) == 1 or value.shape[-1] == 1:
            continue
        with graph.inserting_before(node):
            copy = graph.call_function(
                torch.ops.aten.clone.default,
                (argument,),
                {"memory_format": torch.contiguous_format},
            )
        copy.meta["val"] = value.contiguous()
        node.replace_input_with(argument, copy)


# Ops on a GPU of which these results lie on the CPU; their fakes say otherwise.
_HOST_RESULTS = {torch.ops.aten._scaled_dot_product_efficient_attention.default: (2, 3)}


class PlainAttention(CallMode):
    """Has attention computed by plain matrix products, without the fused kernels.

    Of these some have no derivative, or not every one, and the CPU kernel's abstract rule gives
    other strides than the kernel itself (torch 2.13). While a mode is on, torch's layers do not
    take their fast path either.
    """

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a torch function; attention by plain products."""
        if func is functional.scaled_dot_product_attention:
            func = _plain_attention
        elif func is functional.multi_head_attention_forward:
            func = _with_plain_attention(func)
        return func(*args, **kwargs)


def _plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` as torch computes it where no fused kernel fits."""
    device = query.device.type
    tensors = [query, key, value]
    narrow = torch.is_autocast_enabled(device)
    if narrow:  # it decides on the dtypes of attention as a whole
        tensors = [_narrowed(tensor, device) for tensor in tensors]
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        # The plain products add a mask; a boolean one says what may be looked at.
        zeros = torch.zeros_like(attn_mask, dtype=tensors[0].dtype)
        attn_mask = zeros.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None and narrow:
        attn_mask = _narrowed(attn_mask, device)
    compute: Any = torch._scaled_dot_product_attention_math
    with torch.autocast(device, enabled=False) if narrow else contextlib.nullcontext():
        result: torch.Tensor
        result, _ = compute(
            *tensors, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return result


def _narrowed(tensor: torch.Tensor, device: str) -> torch.Tensor:
    if not tensor.is_floating_point() or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def _with_plain_attention(function: Any) -> FunctionType:
    """A copy of a function of torch's. The mode is off inside of what it has caught."""
    # By name: that is how torch's own function finds it.
    names = {**function.__globals__, "scaled_dot_product_attention": _plain_attention}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    # It hands itself to modes that are still on, under its own name.
    names[function.__name__] = copy
    return copy


def is_attention(function: Any) -> bool:
    """Whether an ATen op is one of the fused attention kernels, which have few derivatives."""
    name = str(function)
    return "attention" in name or "transformer" in name
