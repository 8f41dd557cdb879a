"""What code asks torch to learn whether it is traced. Tried on torch 2.13.0.

Of 2.11 to 2.14 the same is used: plain functions ``torch.compiler.is_compiling`` and
``is_exporting``, which return flags of the process. The older ``torch._dynamo.is_compiling`` and
``torch._utils.is_compiling`` call the first. ``torch.export`` sets both flags while it traces
(``torch._export.utils._compiling_state_context``), and leaves ``is_dynamo_compiling`` and
``torch.jit.is_tracing`` false, as is done here.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch

from .distribution_checks import checks_left_out

_TORCH = str(Path(torch.__file__).parent) + "/"
# They pass a question on.
_OLDER = (f"{_TORCH}_dynamo/external_utils.py", f"{_TORCH}_utils.py")


class Asked:
    """What was asked in an evaluation.

    Attributes:
        flags: ``compiling`` and ``exporting``, and ``unchecked`` where a distribution asked whether
            to check its arguments, by whomever but torch's machinery (packages whose
            names begin with an underscore), which asks whenever it evaluates with fakes.
        outside: Code that is not torch's own has asked.
    """

    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.outside = False


class _Here(threading.local):
    """What one thread is told, and where its questions are noted."""

    flags: str = ""
    asked: Asked | None = None


_here = _Here()
_counting = threading.Lock()
_users = 0
_own_code: dict[Any, CodeType] = {}
_own: dict[str, Callable[[], bool]] = {}


# Their code stands in for that of torch's functions, and finds no names of this file.
def _is_compiling() -> bool:
    from jaxtorch_bridge._compat.torch.capture.export_flags import answer

    return answer("compiling")


def _is_exporting() -> bool:
    from jaxtorch_bridge._compat.torch.capture.export_flags import answer

    return answer("exporting")


_INSTEAD: dict[str, tuple[Any, FunctionType]] = {
    "compiling": (torch.compiler.is_compiling, _is_compiling),  # type: ignore[dict-item]
    "exporting": (torch.compiler.is_exporting, _is_exporting),  # type: ignore[dict-item]
}


def answer(flag: str) -> bool:
    """What one of torch's two functions returns in this thread."""
    if _here.asked is not None:
        file = _asking(sys._getframe(2))
        if not file.startswith(f"{_TORCH}_"):
            _here.asked.flags.add(flag)
            _here.asked.outside |= not file.startswith(_TORCH)
    # Who exports has both flags.
    if _here.flags == "exporting" or _here.flags == flag:
        return True
    own = _own.get(flag)
    # None: the last user has ended since the question began.
    return bool(_INSTEAD[flag][0]() if own is None else own())


def _checks_left_out() -> bool:
    """Whether this thread leaves out checks of distributions; noted as a question."""
    if _here.asked is not None:
        _here.asked.flags.add("unchecked")
    return _here.flags == "unchecked"


def _asking(frame: FrameType | None) -> str:
    """The file of the code that asks, also by an older function."""
    while frame is not None and frame.f_code.co_filename in _OLDER:
        frame = frame.f_back
    return "" if frame is None else frame.f_code.co_filename


def raised_by_torch(error: BaseException) -> bool:
    """Whether an error comes from torch's own code, not from a check of its caller's."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename.startswith(_TORCH)


def flags_matter() -> bool:
    """Whether this thread is told a flag at present, or has asked for one; see `tracing_flags`."""
    return bool(_here.flags or (_here.asked is not None and _here.asked.flags))


@contextlib.contextmanager
def tracing_flags(flags: str) -> Iterator[Asked]:
    """Tell this thread that it is traced, and note what it asks.

    Torch's flags are the process's: with them, models that run meanwhile on other threads would
    take other ways in silence, and ``torch.compile`` on another thread, which puts back what it
    found, could leave one on for ever. So it is the code of the two functions that is another one
    meanwhile, which looks at the thread; whoever has imported the functions calls it, and Dynamo
    and TorchScript, which know them by identity and by file, see no difference.

    Args:
        flags: ``unchecked`` (``torch.distributions`` makes no checks), ``compiling``, ``exporting``
            (which is both), or empty: as it would be without a trace around this one.
    """
    before = (_here.flags, _here.asked)
    asked = Asked()
    with _replaced(), checks_left_out(_checks_left_out):
        _here.flags, _here.asked = flags, asked
        try:
            yield asked
        finally:
            _here.flags, _here.asked = before


@contextlib.contextmanager
def _replaced() -> Iterator[None]:
    """Have torch's two functions ask this file, as long as anybody is in here."""
    global _users
    with _counting:
        if _users == 0:
            for flag, (function, instead) in _INSTEAD.items():
                code = function.__code__
                _own_code[function] = code
                _own[flag] = FunctionType(code, function.__globals__)
                # File and line as they were: by these Dynamo skips it, and TorchScript reads it.
                function.__code__ = instead.__code__.replace(
                    co_filename=code.co_filename,
                    co_firstlineno=code.co_firstlineno,
                    co_name=code.co_name,
                    co_qualname=code.co_qualname,
                )
        _users += 1
    try:
        yield
    finally:
        with _counting:
            _users -= 1
            if _users == 0:
                for function, code in _own_code.items():
                    function.__code__ = code
                _own_code.clear()
                _own.clear()
