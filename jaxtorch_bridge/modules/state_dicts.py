"""A module's parameters and buffers from a state dict, and back into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import torch

from .._compat.torch.pytrees import tree_leaves, tree_map_only
from .._compat.torch.tensors import version_of
from ..errors import ModuleError
from ..torchside.modules.module_call import listed, wrong_shape
from ..torchside.modules.named_tensors import NamedTensor, is_discrete
from ..torchside.modules.skeleton import Skeleton, Template
from ..transfer import dtype_j2t, j2t, t2j


def loaded(
    template: Template,
    label: str,
    arrays: Sequence[jax.Array],
    state_dict: Mapping[str, Any],
    *,
    strict: bool,
) -> list[jax.Array]:
    """What the module would hold after ``load_state_dict``, in the order of the slots.

    Args:
        template: The module.
        label: Its name, for messages.
        arrays: What it held before.
        state_dict: What it is given.
        strict: As in ``load_state_dict``.

    Raises:
        RuntimeError: Torch's own, for names and shapes that do not fit.
        ModuleError: An entry is neither a parameter nor a buffer and differs from the module's, or
            none of ``arrays`` can be used for what ``state_dict`` lacks.
    """
    skeleton = template.skeleton(None)
    own = [_room_for(named, array) for named, array in zip(template.named, arrays, strict=True)]
    skeleton.fill(own)
    # Copies, since load_state_dict writes in place.
    before = tree_map_only(torch.Tensor, torch.clone, _besides(skeleton, own))
    # A tensor's version tells whether load_state_dict has written to it.
    versions = [version_of(tensor) for tensor in own]
    skeleton.module.load_state_dict(state_dict, strict=strict)
    # Read again: a slot may hold another tensor by now than it was filled with.
    found = [skeleton.read(index) for index in range(len(own))]
    after = _besides(skeleton, [*own, *found])
    others = [name for name in before if not _same(before[name], after.get(name))]
    if others:
        raise ModuleError(
            f"{label}: expected a state dict that differs from the module's in parameters and "
            f"buffers; {listed(others)} differ too, which calls take from the module as it was. "
            "Load it into the module, and pass that to from_module."
        )
    # Donated, and never written to: what is there is the empty memory of `_room_for`.
    lost = [
        named.name
        for named, array, tensor, now, version in zip(
            template.named, arrays, own, found, versions, strict=True
        )
        if array.is_deleted() and now is tensor and version_of(tensor) == version
    ]
    if lost:
        raise ModuleError(
            f"{label}: expected the state dict to have {listed(lost)}, since the arrays that "
            "from_module made of them were donated to a jitted function."
        )
    return [t2j(tensor) for tensor in found]


def dumped(template: Template, label: str, arrays: Sequence[Any]) -> dict[str, Any]:
    """The module's ``state_dict()`` with these values, in the order of the slots.

    Raises:
        ModuleError: An array has another shape than the module's.
        TransferError: It is a tracer, or on several devices.
    """
    skeleton = template.skeleton(None)
    tensors = []
    for named, array in zip(template.named, arrays, strict=True):
        tensor = _tensor(named, array)
        if tuple(tensor.shape) != named.shape:
            raise wrong_shape(label, named, tensor.shape)
        tensors.append(tensor)
    skeleton.fill(tensors)
    # As it is: some layers read the versions that come with it.
    return skeleton.module.state_dict()


def _room_for(named: NamedTensor, array: jax.Array) -> torch.Tensor:
    if array.is_deleted():
        # It was donated; `loaded` objects if the state dict does not fill this.
        return torch.empty(named.shape, dtype=dtype_j2t(array.dtype))
    return _tensor(named, array)


def _tensor(named: NamedTensor, array: Any) -> torch.Tensor:
    """A tensor with memory of its own."""
    tensor = j2t(array, copy=True)
    # JAX may hold integers in 32 bits.
    return tensor.to(named.dtype) if is_discrete(named.dtype) else tensor


def _besides(skeleton: Skeleton, state: Sequence[Any]) -> dict[str, Any]:
    """The entries of the state dict that are no parameters or buffers."""
    known = {id(value) for value in state}
    # Without keep_vars these would be other tensor objects than those of `state`.
    entries = skeleton.module.state_dict(keep_vars=True)
    return {name: value for name, value in entries.items() if id(value) not in known}


def _same(one: Any, other: Any) -> bool:
    ones, others = tree_leaves(one), tree_leaves(other)
    return len(ones) == len(others) and all(map(_same_leaf, ones, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
