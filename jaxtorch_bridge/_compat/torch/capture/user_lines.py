"""Which line of a user's code an operation of a graph comes from.

Tried on torch 2.11.0, 2.13.0 and 2.14.1. Torch's own record (``make_fx(record_stack_traces=True)``)
keeps lines of functions named ``forward`` alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx
from torch.fx import traceback

from ..operators.higher_order import OpMode

_PACKAGE = os.path.dirname(str(sys.modules[__name__.partition(".")[0]].__file__))
# The parts of them that are imported: tests and examples of users may lie beside them.
_NOT_USERS = (os.path.dirname(torch.__file__) + os.sep, _PACKAGE + os.sep)
_FIELD = "stack_trace"


def with_user_lines(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function to be traced whose operations keep their lines in the graph.

    What a backward runs has none: torch calls it in C++.
    """

    def traced(*arguments: Any) -> Any:
        with traceback.preserve_node_meta(), _Lines(traced.__code__):
            return function(*arguments)

    return traced


def replayed(graph: fx.GraphModule) -> Callable[..., Any]:
    """A graph as a function to be traced again, whose operations keep what is known of their lines.

    A graph's own code, if it is called, does not.
    """

    def run(*arguments: Any) -> Any:
        with traceback.preserve_node_meta():
            return fx.Interpreter(graph).run(*arguments)

    return run


def user_line(node: fx.Node) -> str:
    """``file.py:12`` of an operation; empty if nobody knows."""
    return str(node.meta.get(_FIELD) or "")


class _Lines(OpMode):
    def __init__(self, outermost: CodeType) -> None:
        super().__init__()
        self._outermost = outermost

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an op, whose nodes take what stands here."""
        meta = traceback.get_current_meta()
        before = meta.get(_FIELD)
        meta[_FIELD] = self._line(sys._getframe(1))
        try:
            return func(*args, **kwargs)
        finally:
            meta[_FIELD] = before

    def unseen(self, func: Any) -> None:
        """Nothing to do."""

    def _line(self, frame: FrameType | None) -> str:
        # Behind the outermost are those who trace.
        while frame is not None and frame.f_code is not self._outermost:
            name = frame.f_code.co_filename
            # Frames of generated code have names such as `<eval_with_key>`.
            if not name.startswith(_NOT_USERS) and not name.startswith("<"):
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""
