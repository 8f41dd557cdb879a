"""Functions of torch that do what one ATen op does, by its name.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..pytrees import tree_flatten
from .higher_order import OpMode


class FirstOp(OpMode):
    """Stops at the first ATen op that a function comes down to, and notes its arguments."""

    class _Found(Exception):
        pass

    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[Any, Any, Any] | None = None

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Note an ATen op, and stop."""
        self.found = func, args, kwargs
        raise self._Found

    @classmethod
    def of(
        cls, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> tuple[Any, Any, Any] | None:
        """(op, arguments, keywords), without running it; None if the function takes no such."""
        mode = cls()
        try:
            with mode, torch.no_grad():
                function(*args, **kwargs)
        except cls._Found:
            return mode.found
        except Exception:
            # Whatever it says to arguments that are not its own.
            return None
        return None


def same_calls(one: tuple[Any, Any, Any] | None, other: tuple[Any, Any, Any] | None) -> bool:
    """Whether two calls are of one op, with the same arguments."""
    if one is None or other is None or one[0] is not other[0]:
        return False
    ours, our_form = tree_flatten(one[1:])
    theirs, their_form = tree_flatten(other[1:])
    return our_form == their_form and all(map(_same_argument, ours, theirs))


def _same_argument(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    # 1, 1.0 and True are equal, and tell torch different things.
    return type(one) is type(other) and bool(one == other)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
}


def functions_named(op: Any) -> list[Callable[..., Any]]:
    """C functions of torch that may do what an ATen overload does, by its name."""
    if op.namespace != "aten":
        return []
    name = op.overloadpacket.__name__
    places = (torch._C._VariableFunctions, torch._C._nn, torch._C.TensorBase)
    named = [getattr(place, name) for place in places if hasattr(place, name)]
    found = [function for function in named if _is_what_graphs_write(function)]
    # Python's operators take the shortest way of all.
    return [_OPERATORS[name], *found] if name in _OPERATORS else found


def _is_what_graphs_write(function: Any) -> bool:
    """Whether the text of a graph comes to this function.

    The text has names. ``torch.block_diag`` is written for the C function too, but is one of
    Python's, which takes other arguments.
    """
    from torch.fx.node import _get_qualified_name

    try:
        path = _get_qualified_name(function).split(".")
        meant = functools.reduce(getattr, path[1:], torch)
    except (AttributeError, RuntimeError):
        return False
    return path[0] == "torch" and meant is function
