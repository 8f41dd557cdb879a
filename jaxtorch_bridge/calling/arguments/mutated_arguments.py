"""What a call does with the arguments that its function writes to, as it declares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..._compat.torch.func_transforms import is_transformed
from ...errors import MutationError
from ..pytrees import trees
from ..pytrees.trees import Structure


@dataclass(frozen=True)
class Group:
    """One declared argument, or a part of one.

    Attributes:
        name: As declared: ``params`` or ``params.w``.
        slots: Its tensors among those of the call.
        structure: How they make it up.
    """

    name: str
    slots: tuple[int, ...]
    structure: Structure

    def value(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The argument as it stands."""
        return trees.unflatten(self.structure, [tensors[slot] for slot in self.slots])


class Mutated:
    """What a call returns in place of what its function returns: that, and the new values.

    The new values alone, if the function returns nothing or only arguments that it writes to.
    """

    def __init__(self, label: str, groups: Sequence[Group]) -> None:
        self._label = label
        self.groups = tuple(groups)
        self.slots = tuple(slot for group in groups for slot in group.slots)
        self._values_alone = False

    def result(self, result: Any, tensors: Sequence[torch.Tensor]) -> Any:
        """The result of the call.

        Args:
            result: What the function returned.
            tensors: What it was called with, as it left them.
        """
        values = [group.value(tensors) for group in self.groups]
        # Inside of torch.func's transforms a tensor may be another object after each operation;
        # whether the function returns its arguments was seen when it was planned.
        if not any(is_transformed(tensors[slot]) for slot in self.slots):
            own = {id(tensors[slot]) for slot in self.slots}
            self._values_alone = all(id(leaf) in own for leaf in trees.flatten(result)[0])
        if not self._values_alone:
            return (result, *values)
        return values[0] if len(values) == 1 else tuple(values)

    def around(self, result: Any) -> tuple[Any, int]:
        """What `result` and `behind` give, for what the function returns, without its tensors."""
        values = [
            trees.unflatten(group.structure, range(len(group.slots))) for group in self.groups
        ]
        if result is not None:
            return (result, *values), len(values)
        return (values[0] if len(values) == 1 else tuple(values)), 0

    @property
    def behind(self) -> int:
        """How many new values stand behind the function's result in the last one that was made."""
        return 0 if self._values_alone else len(self.groups)

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
        """The function's result, where all that it does to its arguments are writes.

        Raises:
            MutationError: It puts something else into a list, dict or object that it is given.
        """
        # A write in place leaves every leaf the object that it was.
        before = trees.flatten((tuple(args), kwargs))
        result = function(*args, **kwargs)
        after = trees.flatten((tuple(args), kwargs))
        same = before[1] == after[1] and all(map(_is_same, before[0], after[0]))
        if not same:
            names = ", ".join(f"`{group.name}`" for group in self.groups)
            raise MutationError(
                f"{self._label}: expected {names} to be written to in place, as `mutates` "
                "declares; the function puts something else into a dict, list or object that it "
                "is given, which would be lost. Write to the arrays (`state['w'].copy_(new)` "
                "instead of `state['w'] = new`), or return what is new.",
                callable_name=self._label,
            )
        return result

    def release(self, tensors: Sequence[torch.Tensor]) -> None:
        """Take what was written to out of autograd's graph, after a run that nobody differentiates.

        Where the function closes over parameters, the graph may hold a tensor that holds the graph,
        and would never be freed.
        """
        for slot in self.slots:
            tensor = tensors[slot]
            if tensor.grad_fn is not None and not is_transformed(tensor):
                tensor.detach_()

    def copies(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors with copies of those that may be written to."""
        found = list(tensors)
        for slot in self.slots:
            found[slot] = found[slot].clone()
        return found


def _is_same(before: Any, after: Any) -> bool:
    # Classes registered with JAX may make their static values each time that they are taken apart.
    return before is after or (not isinstance(before, torch.Tensor) and bool(before == after))
