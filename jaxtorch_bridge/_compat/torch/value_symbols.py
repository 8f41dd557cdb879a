"""Symbols for sizes that follow from values, and what torch's own code is told of them.

Tried on torch 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ...first_line import first_line

_TORCH = os.path.dirname(torch.__file__) + os.sep
_SYMBOLS = tuple(
    os.path.join(_TORCH, "fx", "experimental", name)
    for name in ("sym_node.py", "symbolic_shapes.py", "recording.py")
)
# Where torch has operations in Python: nobody sees what they decide.
_OPERATIONS = tuple(
    os.path.join(_TORCH, name)
    for name in ("_refs", "_decomp", "_prims", "_meta_registrations.py", "_subclasses")
)
# What a symbol is taken for, in turn. Neither none nor one: of these torch's code makes special
# cases, which give what the general case gives.
_TAKEN_FOR = (2, 2**40)


def shape_env() -> Any:
    """A ``ShapeEnv`` in which torch's own operations may ask whether a size is 0 or 1.

    The answer is no. A user's code that asks is refused: it may do something else then.
    ``refusals`` has the errors in words, ``answers`` how many answers there were.
    """
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv

    class Symbols(ShapeEnv):
        answers = 0

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            # Torch's caches keep this object, which must not keep the frames of an error.
            self.refusals: list[str] = []

        def evaluate_sym_node(self, sym_node: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().evaluate_sym_node(sym_node, *args, **kwargs)
            except GuardOnDataDependentSymNode as error:
                # A value that is read is no size: torch asks on behalf of the user's code.
                sizes = sym_node.expr.free_symbols <= self.size_like
                answer = in_general(sym_node.expr) if sizes else None
                if answer is None or not _torch_asks(sys._getframe(1)):
                    self.refusals.append(first_line(error))
                    raise
                self.answers += 1
                return answer

    return Symbols(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True)


def _torch_asks(frame: FrameType | None) -> bool:
    """Whether it is an operation of torch's that wants to know; those in C++ have no frame."""
    asked = False
    while frame is not None and frame.f_code.co_filename in (*_SYMBOLS, torch.__file__):
        # A method of `torch.SymBool` or `torch.SymInt`, or a function of torch's that asks.
        asked |= frame.f_code.co_filename == torch.__file__
        asked |= frame.f_code.co_name in ("guard_size_oblivious", "guard_bool_or")
        frame = frame.f_back
    return not asked or (frame is not None and frame.f_code.co_filename.startswith(_OPERATIONS))


class AnswersWatch(TorchFunctionMode):
    """Refuses functions of torch's that hand out what they were told of sizes.

    Such as ``is_contiguous``, whose result is no tensor, and ``squeeze``, whose result has other
    axes.

    Args:
        symbols: What `shape_env` gave.
    """

    def __init__(self, symbols: Any) -> None:
        super().__init__()
        self._symbols = symbols

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        before = self._symbols.answers
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        told = self._symbols.answers > before and isinstance(result, (bool, int, float))
        if told or (name in ("squeeze", "squeeze_") and _may_squeeze(*args, **(kwargs or {}))):
            error = HandedOutError(f"`{name}` depends on a size that follows from values")
            self._symbols.refusals.append(first_line(error))
            raise error
        return result


def _may_squeeze(input: torch.Tensor, dim: Any = None) -> bool:
    """Whether axes are left out whose size follows from values, if that is 1."""
    dims = range(input.dim()) if dim is None else dim if isinstance(dim, tuple | list) else (dim,)
    return any(isinstance(input.shape[axis], torch.SymInt) for axis in dims)


class HandedOutError(RuntimeError):
    """A user's code asks for what depends on a size that follows from values."""


def in_general(expression: Any) -> Any:
    """What holds of sizes that are neither 0 nor 1; None where that differs, or is no yes or no."""
    import sympy

    symbols = sorted(expression.free_symbols, key=str)
    found = {
        expression.subs({symbol: size + step * place for place, symbol in enumerate(symbols)})
        for size in _TAKEN_FOR
        for step in (0, 1, -1 if size > len(symbols) + 2 else 1)
    }
    answer = found.pop()
    return answer if not found and answer in (sympy.true, sympy.false) else None
