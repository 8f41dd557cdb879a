"""What surrounds a function, to be put back after a trial run."""

from __future__ import annotations

import collections
import operator
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..._compat.torch.fake_tensors import is_fake
from ..._compat.torch.pytrees import tree_leaves
from ..inspection.bytecode_names import is_of_framework
from ..inspection.careful_access import entries, is_a, kind_of, own_attributes, stored_items
from ..inspection.code_text import UNBOUND
from ..inspection.code_text import value_of_cell as cell_value
from ..inspection.deep_contents import keeps_fakes

CONTAINERS = (dict, list, set, collections.deque)
# CPython's Py_TPFLAGS_HEAPTYPE.
_MADE_BY_A_CLASS_STATEMENT = 1 << 9


class Snapshot:
    """Attributes, containers and names around a function, shallowly, as they were."""

    def __init__(
        self,
        holders: list[Any],
        cells: list[types.CellType],
        names: list[tuple[dict[str, Any], str]],
        caches: list[Any],
        classes: Iterable[type],
        tensors: Iterable[torch.Tensor],
        note_changes: Callable[[], None],
    ) -> None:
        self._note_changes = note_changes
        # What a backward inside accumulates in them.
        self._grads = [(one, one.grad, one.requires_grad) for one in tensors if one.is_leaf]
        # By their numbers: a metaclass may have a `__hash__` of its own.
        inherited = {id(part): part for kind in classes for part in _of_class(kind, "__mro__")}
        own = [part for part in inherited.values() if not _is_fixed(part)]
        self._classes = [(kind, dict(_of_class(kind, "__dict__"))) for kind in own]
        kept = [value for _, attributes in self._classes for value in attributes.values()]
        # Of classes only fakes are taken back: what an import registers there must stay.
        self._shared = [(one, _stored(one)) for one in kept if is_a(one, CONTAINERS)]
        self._caches = [(cache, cache.cache_info().currsize) for cache in caches]
        self._containers = [
            (container, _stored(container)) for held in holders for container in _containers(held)
        ]
        self._cells = [(cell, cell_value(cell)) for cell in cells]
        self._names = [(table, name, table.get(name, UNBOUND)) for table, name in names]

    def restore(self, *, flags: bool = False) -> bool:
        """Put everything back; True if any tensor had been kept or replaced meanwhile.

        Args:
            flags: Code was told that it is traced, or has asked: caches may have the answer.
        """
        self._note_changes()
        found: list[Any] = []
        for cache, size in self._caches:
            if cache.cache_info().currsize != size and (flags or keeps_fakes(cache)):
                # Entries cannot be taken out one by one.
                cache.cache_clear()
        for container, before in self._containers:
            if not _same_content(container, before):
                found += entries(container)
                _fill(container, before)
        for container, before in self._shared:
            if not _same_content(container, before) and _holds_fakes(entries(container)):
                _fill(container, before)
        for tensor, grad, requires_grad in self._grads:
            if tensor.grad is not grad:
                found.append(tensor.grad)
                tensor.grad = grad
            if tensor.is_leaf and tensor.requires_grad is not requires_grad:
                tensor.requires_grad_(requires_grad)
        for kind, before in self._classes:
            _take_fakes_back(kind, before)
        for cell, value in self._cells:
            if cell_value(cell) is not value:
                found.append(cell_value(cell))
                if value is UNBOUND:
                    del cell.cell_contents
                else:
                    cell.cell_contents = value
        for table, name, value in self._names:
            if table.get(name, UNBOUND) is not value:
                found.append(table.pop(name, None))
                if value is not UNBOUND:
                    table[name] = value
        return _holds_fakes(found)


def _containers(holder: Any) -> list[Any]:
    """The dicts, lists, sets and deques that hold an object's state."""
    itself = [holder] if is_a(holder, CONTAINERS) else []
    own = own_attributes(holder)
    if own is None:
        return itself
    return [*itself, own, *(one for one in entries(own) if is_a(one, CONTAINERS))]


def _stored(container: Any) -> Any:
    """What a dict, list, set or deque holds, in one of Python's own."""
    if is_a(container, dict):
        return dict(stored_items(container))
    kind = kind_of(container)
    return kind(kind.__iter__(container))


def _same_content(container: Any, before: Any) -> bool:
    now = _stored(container)
    if len(now) != len(before):
        return False
    if is_a(now, set):
        return bool(now == before)
    # By identity: `==` of tensors and arrays is no truth value.
    if is_a(now, dict) and not all(map(operator.is_, now.values(), before.values())):
        return False
    # Of a dict its keys, which have an order.
    return all(map(operator.is_, now, before))


def _take_fakes_back(kind: type, before: dict[str, Any]) -> None:
    """Give a class the attributes that it had, where it has got fakes meanwhile."""
    for name, value in list(_of_class(kind, "__dict__").items()):
        if value is before.get(name, UNBOUND) or not _holds_fakes(value):
            continue
        # Not by the class's own `__setattr__`, which may do anything.
        if name in before:
            type.__setattr__(kind, name, before[name])
        else:
            type.__delattr__(kind, name)


def _fill(container: Any, before: Any) -> None:
    # In place: others refer to the container itself.
    kind = kind_of(container)
    kind.clear(container)
    if is_a(container, dict):
        for key, value in before.items():
            kind.__setitem__(container, key, value)
    else:
        (kind.update if kind is set else kind.extend)(container, before)


def _holds_fakes(value: Any) -> bool:
    return any(is_fake(leaf) for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _of_class(kind: type, name: str) -> Any:
    # Not by its metaclass, which may do anything.
    return type.__getattribute__(kind, name)


def _is_fixed(kind: type) -> bool:
    """Whether a class is Python's, or a framework's, which functions do not change."""
    return is_of_framework(kind) or not _of_class(kind, "__flags__") & _MADE_BY_A_CLASS_STATEMENT
