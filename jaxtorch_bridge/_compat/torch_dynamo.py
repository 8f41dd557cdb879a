"""Planning without torch's compiler where it can. Tried on torch 2.11.0, 2.13.0 and 2.14.1.

Fake tensors read three settings of Dynamo's, and every dispatch mode is marked as code that Dynamo
is to leave alone. Either loads the whole of it, with Inductor's rules and torch.distributed:
320 modules, 35 MiB and a third of the time of a process's first plan. Here the settings are loaded
alone, and the marks wait until somebody else loads Dynamo.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import torch
from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_NAME = "torch._dynamo"
_SETTINGS = "torch._dynamo.config"
# Where `torch._disable_dynamo` keeps what `torch._dynamo.disable` made of a function.
_DISABLED = "__dynamo_disable"
# The code of everything that `torch._disable_dynamo` returns.
_MARK = _disable_dynamo(lambda: None).__code__
_lock = threading.Lock()


def is_loaded() -> bool:
    """Whether the process has loaded Dynamo, or is loading it."""
    return _NAME in sys.modules


class _Later(types.ModuleType):
    """``torch._dynamo`` before it is loaded: its settings are there, all else loads it.

    Never in ``sys.modules``: an import statement loads Dynamo as ever, and Python then puts the
    loaded module in this one's place.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks what this is, to print it for one
            raise AttributeError(name)
        return getattr(importlib.import_module(_NAME), name)


def defer() -> None:
    """Let fake tensors do without Dynamo until something else needs it."""
    with _lock:
        if is_loaded() or "_dynamo" in vars(torch):
            return
        from torch._decomp import global_decomposition_table
        from torch._subclasses.fake_tensor import FakeTensorMode

        until_loaded(FakeTensorMode.__torch_dispatch__)
        # Among them are the shapes of arithmetic's results.
        for table in global_decomposition_table.values():
            for rule in table.values():
                until_loaded(rule)
        later = _Later(_NAME)
        vars(later)["config"] = _settings()
        torch._dynamo = later


def _settings() -> types.ModuleType:
    """``torch._dynamo.config``, the same module that Dynamo will find when it is loaded."""
    found = sys.modules.get(_SETTINGS)
    if found is not None:
        return found
    path = Path(torch.__file__).parent / "_dynamo" / "config.py"
    spec = importlib.util.spec_from_file_location(_SETTINGS, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: cannot be loaded", name=_SETTINGS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_SETTINGS] = module  # the settings look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_SETTINGS]
        raise
    return module


def until_loaded(function: Any) -> None:
    """Have a function that is marked for Dynamo run as it is while there is no Dynamo.

    Args:
        function: What may have come from ``torch._disable_dynamo(original)``, maybe wrapped again.
            An original that was called before, when Dynamo was there, is left as it is.
    """
    while function is not None:
        if getattr(function, "__code__", None) is _MARK:
            # Not `__wrapped__`, which wrappers around it may have changed.
            original = function.__closure__[_MARK.co_freevars.index("fn")].cell_contents
            if not hasattr(original, _DISABLED):
                setattr(original, _DISABLED, _while_there_is_none(original))
        function = getattr(function, "__wrapped__", None)


def _while_there_is_none(original: Callable[..., Any]) -> Callable[..., Any]:
    def disabled(*args: Any, **kwargs: Any) -> Any:
        if not is_loaded():
            return original(*args, **kwargs)
        # What torch would have made at the first call.
        made = importlib.import_module(_NAME).disable(original, True, wrapping=False)
        setattr(original, _DISABLED, made)
        return made(*args, **kwargs)

    return disabled


class DispatchMode(TorchDispatchMode):
    """A dispatch mode that does not load Dynamo when it meets its first op."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # type: ignore[no-untyped-call]
        until_loaded(vars(cls).get("__torch_dispatch__"))


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run functions made by ``torch.compile`` as they were written.

    Dynamo can neither be traced through nor be differentiated by ``torch.func``. A function may be
    the first to load it, in the middle of its evaluation. To be entered before any mode.
    """
    with contextlib.ExitStack() as stack:
        if is_loaded():
            _leave_alone(stack)
        else:
            stack.enter_context(_Arrivals(lambda: _leave_alone(stack)))
        yield


def _leave_alone(stack: contextlib.ExitStack) -> None:
    dynamo = importlib.import_module(_NAME)
    stack.enter_context(torch.compiler.set_stance("force_eager"))
    stack.enter_context(dynamo.config.patch(error_on_nested_fx_trace=False))


class _Arrivals:
    """Watches what this thread loads of torch; a finder of Python's import system.

    Torch's modules are loaded as they would be outside of an evaluation: a tensor that one of them
    made for itself would be a fake for ever.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Python's own spec for a module of torch, with a loader that knows of the evaluation."""
        if not name.startswith("torch.") or threading.get_ident() != self._thread:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            then = self._then if name == _NAME else None
            spec.loader = _Outside(spec.loader.name, spec.loader.path, then)
        return spec


class _Outside(SourceFileLoader):
    """Runs a module's code outside of all modes, without garbage collections; may call back."""

    def __init__(self, name: str, path: str, then: Callable[[], None] | None) -> None:
        super().__init__(name, path)
        self._then = then

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module's code, then say so."""
        with uncollected(), _disable_current_modes(), torch._C.DisableTorchFunction():
            super().exec_module(module)
        if self._then is not None:
            self._then()
            self._then = None  # a loader lives as long as its module


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile.

    While torch loads hundreds of modules, collections that find no garbage in them, and go through
    everything else that is alive, take nearly half of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
