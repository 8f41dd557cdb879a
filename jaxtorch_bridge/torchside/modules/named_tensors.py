"""A module's parameters and buffers, by name."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..._compat.torch import compiled_code
from ..._compat.torch.modules import own_buffers, own_parameters
from ..._compat.torch.tensors import has_hooks
from ...call_site import caller_level
from ...errors import BridgeWarning, ModuleError
from ..inspection.reachable_objects import memory_of


@dataclass(frozen=True)
class NamedTensor:
    """What is known of one parameter or buffer.

    Attributes:
        name: As ``named_parameters`` has it; the first one if several layers share it.
        shape: Its shape.
        dtype: Its dtype.
        trainable: Whether it requires grad.
        is_buffer: Whether it goes with the buffers: also a parameter that cannot be
            differentiated (integers of a quantised layer).
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    trainable: bool
    is_buffer: bool


def is_discrete(dtype: torch.dtype) -> bool:
    """Whether there are no derivatives by values of a dtype: integers and booleans."""
    return not (dtype.is_floating_point or dtype.is_complex)


def plain_name(name: str) -> str:
    """A parameter's name as it was before ``torch.compile``."""
    return name.replace(compiled_code.PREFIX, "")


def named_tensors(module: torch.nn.Module) -> list[tuple[NamedTensor, torch.Tensor]]:
    """The parameters by name, then the buffers, each once, and what is to be known of them.

    Raises:
        ModuleError: One is not there yet, or two have one name.
    """
    found: dict[int, tuple[NamedTensor, torch.Tensor]] = {}
    for prefix, part in module.named_modules():
        for table, is_buffer in ((own_parameters(part), False), (own_buffers(part), True)):
            for key, tensor in table.items():
                # A shared parameter is one leaf, under its first name.
                if tensor is None or id(tensor) in found:
                    continue
                name = plain_name(f"{prefix}.{key}" if prefix else key)
                if torch.nn.parameter.is_lazy(tensor):
                    raise ModuleError(
                        f"from_module, `{name}`: expected a tensor; got one that a lazy layer has "
                        "not made yet. Call the module once in torch first."
                    )
                shape, trains = tuple(tensor.shape), tensor.requires_grad
                # JAX would refuse to differentiate by a tree of parameters with integers in it.
                goes_with_buffers = is_buffer or is_discrete(tensor.dtype)
                named = NamedTensor(name, shape, tensor.dtype, trains, goes_with_buffers)
                found[id(tensor)] = named, tensor
    hooked = [named.name for named, tensor in found.values() if has_hooks(tensor)]
    if hooked:
        warnings.warn(
            f"from_module: hooks on the gradient of {', '.join(map('`{}`'.format, hooked))} are "
            "not run: gradients are by arrays of JAX. Change the gradient there, or in a hook of "
            "the layer.",
            BridgeWarning,
            stacklevel=caller_level(),
        )
    # The order in which slots count.
    pairs = sorted(found.values(), key=lambda pair: (pair[0].is_buffer, pair[0].name))
    _look_at_ties(type(module).__name__, pairs)
    return pairs


def _look_at_ties(label: str, found: Sequence[tuple[NamedTensor, torch.Tensor]]) -> None:
    """Object to equal names, and say which tensors will no longer share memory."""
    names: set[str] = set()
    ranges: dict[Any, list[tuple[int, int, str]]] = {}
    for named, tensor in found:
        if named.name in names:
            raise ModuleError(
                f"from_module, `{named.name}`: expected names that differ; {label} has two tensors "
                "of this one."
            )
        names.add(named.name)
        if tensor.numel() and memory_of(tensor) is not None:
            first, size = int(tensor.storage_offset()), tensor.element_size()
            # From the first element to the last: interleaved tensors count as sharing.
            span = sum(
                (n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)
            )
            place = (first * size, (first + span + 1) * size, named.name)
            ranges.setdefault(memory_of(tensor), []).append(place)
    for places in ranges.values():
        # By their beginnings, so that only neighbours need be compared.
        places.sort()
        for (_, end, one), (start, _, other) in itertools.pairwise(places):
            if start < end:
                warnings.warn(
                    f"from_module: `{one}` and `{other}` of {label} share memory, but are two "
                    "tensors: here each has its own value, which changes by itself. Let both "
                    "names refer to one tensor if they are to be one.",
                    BridgeWarning,
                    stacklevel=caller_level(),
                )
