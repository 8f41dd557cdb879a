"""Fused attention in graphs. Tried on torch 2.11.0, 2.13.0 and 2.14.1; on CUDA with 2.11.0."""

from __future__ import annotations

import operator
from typing import Any

import torch

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


def is_on_host(node: Any, device: str) -> bool:
    """Whether what a node of a graph for ``device`` gives lies on the CPU when it runs on a GPU."""
    if device == "cpu":
        return False
    if node.target is operator.getitem:
        made, index = node.args
        if made.target in _HOST_RESULTS:
            return index in _HOST_RESULTS[made.target]
    value = node.meta["val"]
    return bool(value.device.type == "cpu")


# Backward ops of fused attention, and where their seeds live.
_SEEDED = {
    torch.ops.aten._scaled_dot_product_efficient_attention_backward.default: "cpu",
    torch.ops.aten._scaled_dot_product_flash_attention_backward.default: "cuda",
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default: "cuda",
}


def unread_seeds(node: Any) -> tuple[tuple[Any, ...], str]:
    """Seeds that a backward of fused attention is given, and reads for dropout only: there is none.

    Returns:
        Their nodes, and the device that they are on.
    """
    if node.target not in _SEEDED:
        return (), ""
    given = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False))
    if given["dropout_p"]:
        return (), ""
    return (given["philox_seed"], given["philox_offset"]), _SEEDED[node.target]
