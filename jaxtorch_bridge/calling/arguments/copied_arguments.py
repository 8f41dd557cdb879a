"""Arguments of which a torch function gets a copy of its own: what ``copies`` means for a call.

For code that writes to what it is given and cannot be changed. The copy is a step of the function
like any other: derivatives and batches go through it, and no engine knows of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..._compat.torch.func_transforms import is_transformed
from ..._compat.torch.tensors import version_of
from ...dotted_names import dotted, is_part
from ...errors import ArgumentError
from ...torchside.functions.saved_values import saving_values
from ...torchside.observe.autograd_recording import single_views
from .sort_leaves import Leaves, named_arguments, named_leaves, parameters_of


def copied_slots(
    label: str, names: Sequence[str], function: Callable[..., Any], leaves: Leaves
) -> tuple[int, ...]:
    """Which tensors of a call are to be copies.

    An argument that is left out, None or an empty container has nothing to copy, and so has a
    part that this call's does not have.

    Raises:
        ArgumentError: There is no such argument, or it holds no arrays.
    """
    if not names:
        return ()
    found: set[int] = set()
    paths = [dotted(".".join(map(str, path))) for path in named_leaves(function, leaves)]
    slots = {position: slot for slot, position in enumerate(leaves.positions)}
    for name in names:
        own = [number for number, path in enumerate(paths) if is_part(path, dotted(name))]
        arrays = [slots[number] for number in own if number in slots]
        if own and not arrays:
            raise ArgumentError(
                f"{label}, argument `{name}`: expected arrays, since `copies` asks for copies of "
                "them; it holds none. Take the name out of `copies`."
            )
        if not own:
            _refuse_unknown(label, name, function, leaves)
        found.update(arrays)
    return tuple(sorted(found))


def on_copies(
    run: Callable[..., Any],
    slots: Sequence[int],
    *,
    recorded: bool = True,
    tell: Callable[[list[int]], None] | None = None,
) -> Callable[..., Any]:
    """A function of flat tensors that is given copies of some.

    Args:
        run: The function.
        slots: Which.
        recorded: Autograd records what it does operation by operation: not where torch compiles it.
        tell: Called after a run with those that were written to, if there are any.
    """
    if not slots:
        return run

    def run_on_copies(*tensors: torch.Tensor) -> Any:
        given = list(tensors)
        for slot in slots:
            given[slot] = given[slot].clone()
        if tell is None:
            return run_recorded(given)
        before = [version_of(given[slot]) for slot in slots]
        result = run_recorded(given)
        pairs = zip(slots, before, strict=True)
        if written := [slot for slot, count in pairs if version_of(given[slot]) != count]:
            tell(written)
        return result

    def run_recorded(given: Sequence[torch.Tensor]) -> Any:
        moves = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
        if not (recorded and moves) or any(map(is_transformed, given)):
            return run(*given)
        # What autograd itself would refuse: values that are saved before they are overwritten, and
        # writes to the parts that iteration makes.
        with saving_values([given[slot] for slot in slots]), single_views():
            return run(*given)

    return run_on_copies


def _refuse_unknown(label: str, name: str, function: Callable[..., Any], leaves: Leaves) -> None:
    """Object to a name that can be no argument of this call, nor of another one."""
    passed = named_arguments(function, leaves, leaves.template)
    known = [dotted(one).partition(".")[0] for one, _ in passed]
    for one in parameters_of(function):
        if one.kind is inspect.Parameter.VAR_KEYWORD:
            return
        known.append(one.name)
    if dotted(name).partition(".")[0] not in known:
        names = ", ".join(f"`{one}`" for one in dict.fromkeys(known))
        raise ArgumentError(
            f"{label}: expected the argument `{name}`, which is declared under `copies`, among "
            f"{names or 'no arguments'}. Correct the name."
        )
