"""Torch's higher-order operators (``cond``, ``while_loop``, ``scan``, ``flex_attention`` ...).

Such an operator takes functions. Tried on torch 2.13.0.

Torch means them for its compiler, which makes operands of all that the functions close over. Under
a dispatch mode Dynamo leaves the code alone, and what is only closed over then has no gradient,
without an error; function modes do not see what the functions do. So where modes of this library
are on, these operators are what their own code on plain tensors says: Python that calls the
functions. Autograd, transforms and modes then see plain operations.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OperatorBase, _compute_keyset
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from ....first_line import first_line
from ..dynamo import as_written
from ..fake_tensors import ValuesReadError, looks_at_values
from ..pytrees import arg_tree_leaves, tree_leaves, tree_map


@functools.cache
def _is_kind(kind: Any) -> bool:
    return issubclass(kind, HigherOrderOperator)


def _is_higher_order(func: Any) -> bool:
    kind: Any = type(func)
    # Asked at every op, and an abstract class is slow to answer.
    return _is_kind(kind)


def _is_code(value: Any) -> bool:
    """Whether a value is a function that a program has given to an operator."""
    # Operators and types, which torch knows itself, are callable too.
    return callable(value) and not isinstance(
        value, (OperatorBase, torch._ops.OpOverloadPacket, type)
    )


def _takes_code(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return _is_higher_order(func) and any(map(_is_code, arg_tree_leaves(*args, **kwargs)))


class CallMode(TorchFunctionMode):
    """A function mode that stays on in code which a program has given to torch.

    That is in functions that higher-order operators take, and in what runs when autograd goes back:
    hooks, and functions in ``torch.utils.checkpoint``.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _GOES_BACK:
            return self._go_back(_GOES_BACK[func], func, args, kwargs)
        if _takes_code(func, args, kwargs):
            with self:
                for mode in _call_modes():
                    mode.notice(func)
                return _by_its_code(func, *args, **kwargs)
        return self.see(func, args, kwargs)

    def _go_back(
        self, run: Callable[..., Any], func: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        # Torch passes all of these by name when a mode is on.
        recorded = bool(kwargs.get("create_graph", False))
        with self:
            modes = _call_modes()
            for mode in modes:
                mode.going_back(recorded)
            try:
                found = run(*args, **kwargs)
            finally:
                for mode in modes:
                    mode.went_back(recorded)
            for mode in modes:
                found = mode.gradients(recorded, found)
            return found

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a torch function, the mode being off."""
        return func(*args, **kwargs)

    def notice(self, func: Any) -> None:
        """The code that a higher-order operator was given runs under the mode."""

    def going_back(self, recorded: bool) -> None:
        """Autograd is about to go back through a record (``recorded``: with ``create_graph``)."""

    def went_back(self, recorded: bool) -> None:
        """It has, or has failed."""

    def gradients(self, recorded: bool, found: Any) -> Any:
        """What it has found, to be handed out."""
        return found


def _call_modes() -> list[CallMode]:
    """All that are on: of several modes the last one handles a call alone."""
    return [mode for mode in _get_current_function_mode_stack() if isinstance(mode, CallMode)]


class OpMode(TorchDispatchMode):
    """A dispatch mode that higher-order operators go through.

    Those that have code of their own never come here: while the mode is on they are run by that.

    Attributes:
        takes_every_branch: Where their code would read values of fakes, torch's own rule for them
            is asked, which evaluates all functions, under the mode.
    """

    supports_higher_order_operators = True
    takes_every_branch = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._around: list[contextlib.AbstractContextManager[None]] = []
        # Ops that failed for want of values, in words. Code that goes on all the same does other
        # things than where there are values.
        self.refusals: list[str] = []

    def __enter__(self) -> Any:
        # Dynamo would skip functions under a mode, and some of them for ever, without modes too.
        self._around.append(higher_order_by_code())
        self._around[-1].__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._around.pop().__exit__(None, None, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not _is_higher_order(func):
            try:
                return self.see(func, args, kwargs)
            except Exception as error:
                if looks_at_values(error):
                    self.refusals.append(first_line(error))
                raise
        entered = _Entered(self)
        try:
            found = self.run_higher_order(
                func, tree_map(entered.watched, args), tree_map(entered.watched, kwargs)
            )
        finally:
            # A function that an operator keeps may run when nobody watches any more.
            entered.ended = True
        if not entered.seen:
            self.unseen(func)
        return found

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op, the mode being off."""
        return func(*args, **kwargs)

    def run_higher_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a higher-order operator; in functions that it takes the mode is on."""
        return _dispatched(func, args, kwargs)

    def unseen(self, func: Any) -> None:
        """A higher-order operator ran none of its functions where the mode could see it.

        Raises:
            NotImplementedError: What it did must not be taken for nothing.
        """
        raise NotImplementedError(f"what torch's operator `{func}` does cannot be watched")


class _Entered:
    """Turns a mode on in the functions that a higher-order operator takes."""

    def __init__(self, mode: OpMode) -> None:
        self.seen = False
        self.ended = False
        self._mode = mode

    def watched(self, value: Any) -> Any:
        """A value; a function with the mode on."""
        if not _is_code(value):
            return value

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.ended:
                return value(*args, **kwargs)
            self.seen = True
            with self._mode:
                return value(*args, **kwargs)

        return run


@contextlib.contextmanager
def higher_order_by_code() -> Iterator[None]:
    """Run higher-order operators by their code, and what torch would compile as it is written."""
    with as_written(), CallMode():
        yield


def _by_its_code(func: Any, /, *args: Any, **kwargs: Any) -> Any:
    code = _code_of(func)
    if code is None:
        return func(*args, **kwargs)
    modes = _get_current_dispatch_mode_stack()
    if not any(isinstance(mode, OpMode) and mode.takes_every_branch for mode in modes):
        return code(*args, **kwargs)
    try:
        return code(*args, **kwargs)
    except Exception as error:
        if not looks_at_values(error):
            raise
    return _by_rule(func, args, kwargs)


@functools.cache
def _code_of(func: Any) -> Callable[..., Any] | None:
    """What an operator does to plain tensors, in Python; None if torch does not say."""
    kernels = func.py_kernels
    found = kernels.get(torch._C.DispatchKey.CompositeExplicitAutograd)
    if isinstance(found, MethodType):
        return MethodType(_under_modes(found.__func__), found.__self__)
    return _under_modes(found) if isinstance(found, FunctionType) else found


def _under_modes(code: Any) -> FunctionType:
    """A copy of such code that runs under modes too.

    Torch objects to them there, where they should have been asked before.
    """
    return _with_names(code, _get_current_dispatch_mode=lambda: None)


def _with_names(code: Any, **names: Any) -> FunctionType:
    """A copy of a function of torch's that finds other things under these names."""
    copy = FunctionType(
        code.__code__,
        {**code.__globals__, **names},
        code.__name__,
        code.__defaults__,
        code.__closure__,
    )
    copy.__kwdefaults__ = code.__kwdefaults__
    return copy


def _unasked(tensors: Any) -> bool:
    """In place of torch's question whether a mode wants to see a call."""
    return False


def _run_backward(*args: Any, **kwargs: Any) -> Any:
    """Autograd's engine as it is now: others replace it, see `autograd.keeping_records`."""
    return torch.autograd.graph._engine_run_backward(*args, **kwargs)


_HERE = {"has_torch_function": _unasked, "_engine_run_backward": _run_backward}
# Without that question, so that modes can be on meanwhile.
_GOES_BACK: dict[Any, Callable[..., Any]] = {
    torch.autograd.grad: _with_names(torch.autograd.grad, **_HERE),
    torch.autograd.backward: _with_names(torch.autograd.backward, **_HERE),
    torch.Tensor.backward: _with_names(torch.Tensor.backward, has_torch_function_unary=_unasked),
}


def _dispatched(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call an operator without asking function modes, which stay on for what it runs."""
    keys = _compute_keyset(args, kwargs, func.non_fallthrough_keys)
    return func.dispatch(keys.highestPriorityTypeId(), *args, **kwargs)


def _by_rule(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What torch's abstract rule says of an operator whose code reads values.

    Raises:
        ValuesReadError: Sizes follow from values.
    """
    from torch._guards import detect_fake_mode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    fakes: Any = detect_fake_mode(args)
    before = fakes.shape_env
    if before is None:
        # Rules ask for one, also where no size depends on values.
        fakes.shape_env = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
    try:
        # Autograd records such an operator by its operands alone.
        with torch._C._AutoDispatchBelowAutograd():
            found = _dispatched(func, args, kwargs)
    finally:
        fakes.shape_env = before
    for leaf in tree_leaves(found):
        sizes = leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)
        if any(isinstance(size, torch.SymInt) for size in sizes):
            raise ValuesReadError(f"the sizes of what `{func}` gives depend on values")
    return found
