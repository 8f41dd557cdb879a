"""Words for what goes wrong while a torch function runs, and the exceptions behind them.

The native handler calls a `Faults` object and hands XLA the text it returns. Under ``jit`` JAX
raises that text; an eager call finds the exception itself again through `claim`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..._compat.torch.fake_tensors import is_fake
from ..._compat.torch.storages import give_own_memory
from ...dotted_names import dotted, is_part
from ...errors import (
    BridgeError,
    EscapeError,
    MutationError,
    OutputError,
    StaleClosureError,
    TorchExecutionError,
)
from ...planner.array_signature import ArraySig
from .failure_record import claim, record
from .gpu_memory import memory_words
from .native_module import native
from .thread_counts import runs_beside_others

_PACKAGE = str(Path(__file__).resolve().parents[2])
_TORCH = str(Path(torch.__file__).parent)

_logger = logging.getLogger("jaxtorch_bridge")
_OUT_OF_MEMORY = (
    "JAX takes three quarters of a GPU's memory when it starts. Torch has the rest, also for what "
    "it keeps between forward and backward passes. Set XLA_PYTHON_CLIENT_MEM_FRACTION=0.3 (or "
    "XLA_PYTHON_CLIENT_PREALLOCATE=false) before JAX starts, or lower "
    "jaxtorch_bridge.settings.tape_bytes; `jaxtorch doctor` says who has what.\n"
)
# Torch's words for labels and places of another dtype than it takes.
_WANTS_INT64 = re.compile(r"\blong\b|LongTensor|\bint64\b", re.IGNORECASE)
_INT64 = (
    "Integers are int32 in JAX unless jax_enable_x64 is set, and so is {0} here. If torch wants "
    "int64 there, convert inside of the function (`{1}.long()`), or say `int64[...]` in a "
    "contract, which converts.\n"
)
# XLA hands an error on when all devices are done, and ends the process if they never are.
_WAITING = "(Told at once: other devices may wait for this one in a collective until XLA gives up.)"


# Only where JAX raises the text itself: an eager derivative has no jit to clear.
_JITTED = (
    " Under jax.jit, call the function without the old jit, or clear it with "
    "`jitted.clear_cache()`, so that it is traced anew."
)


class _Here(threading.local):
    """The first words of this thread's newest failed call, and how many had ended before it."""

    text: str = ""
    calls: int = -1


_here = _Here()


def recorded(error: Exception) -> Exception:
    """The error, which `translated` finds by its text."""
    record(str(error), error)
    return error


def translated(error: BaseException) -> BaseException | None:
    """What an eager call raises in place of JAX's error; None if the error is not ours.

    The bridge's own errors and interrupts as they are; a torch function's exception as the
    cause of a `TorchExecutionError`.
    """
    return _translated(str(error))


def _translated(text: str) -> BaseException | None:
    original = claim(text)
    if isinstance(original, StaleClosureError):
        label = _label_in(text)
        stale = StaleClosureError(f"{label}: {original}", callable_name=label)
        stale.__cause__ = original
        return stale
    if original is None or isinstance(original, BridgeError) or not isinstance(original, Exception):
        return original
    # XLA's text begins with a code ("INTERNAL: "), ours with the callable's name.
    failure = TorchExecutionError(text[text.find(": ") + 2 :], callable_name=_label_in(text))
    failure.__cause__ = original
    return failure


class Watch:
    """What torch does in this thread from now on: for calls that JAX would tell about too late."""

    def __init__(self) -> None:
        self._count = native().calls_here()[0]

    @property
    def succeeded(self) -> bool:
        """Whether torch was called here, and the last of the calls to end did not fail."""
        count, failed, _ = native().calls_here()
        return bool(count != self._count and not failed)

    @property
    def failure(self) -> BaseException | None:
        """What an eager call raises of the last call, if it failed here and its words are known."""
        count, failed, _ = native().calls_here()
        # The words were noted before the call had ended, so under a number less by one.
        if count == self._count or not failed or _here.calls != count - 1:
            return None
        # As XLA would have it, for `_label_in`.
        return _translated(f"INTERNAL: {_here.text}")


def execution_error(
    label: str,
    inputs: Sequence[ArraySig],
    static: Sequence[tuple[str, str]],
    error: BaseException,
) -> TorchExecutionError:
    """The error of a torch function that failed outside of the handler."""
    text = Faults(label, inputs, (), static).exception_text(error)
    return TorchExecutionError(text, callable_name=label)


def advice_on(error: BaseException, inputs: Sequence[ArraySig]) -> str:
    """What to do about an exception of torch's own, where that is known; a line, or nothing."""
    if isinstance(error, torch.OutOfMemoryError):
        return memory_words() + _OUT_OF_MEMORY
    narrow = [sig.path for sig in inputs if sig.torch_dtype == "int32"]
    if narrow and isinstance(error, RuntimeError) and _WANTS_INT64.search(str(error)):
        return _INT64.format(", ".join(f"`{path}`" for path in narrow), narrow[0])
    return ""


def mutation_message(label: str, path: str, others: Sequence[str] = ()) -> str:
    """Words on an input that was written to.

    Args:
        label: The callable's name.
        path: The input.
        others: Inputs that were written to as well.
    """
    name = dotted(path)
    top = name.partition(".")[0]
    also = [f"`{other}`" for other in others if not is_part(dotted(other), top)]
    if len(also) < len(others):
        # Several parts of one argument: all of it, of which nobody may know the parts' names.
        name = top
    more = f" So it does with {', '.join(also)}: name these, too." if also else ""
    return (
        f"{label}, input `{path}`: expected it to be left as it is, but the torch function writes "
        f'to it in place. JAX arrays cannot change. Wrap it with mutates=("{name}",), and the new '
        f'value comes back; or with copies=("{name}",), and the function writes to a copy of its '
        f"own, which is lost. Or let its code write to `{path}.clone()`.{more}"
    )


_WHERE_THEY_DO = (
    "; where they do follow from values, call it outside of JAX's transformations, or give its "
    "results a bound, as in `jax_callable(f, outputs='float32[n<=100]')`."
)


class Faults:
    """Describes the failures of one op."""

    def __init__(
        self,
        label: str,
        inputs: Sequence[ArraySig],
        outputs: Sequence[ArraySig],
        static: Sequence[tuple[str, str]] = (),
        contract: str = "",
    ) -> None:
        self._label = label
        self._contract = contract
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._static = tuple(static)

    def __call__(self, kind: str, index: int, payload: Any) -> str:
        """The words for one failure; called by the native handler with the GIL held.

        Args:
            kind: ``exception``, ``mutated``, ``escaped``, ``kept``, or ``output_*``, ``input_*``.
            index: Which input or output.
            payload: The exception, the output, or (address, bytes, storage) of an escape or of
                a result that was kept.
        """
        # The handler takes no notice of the words where XLA's memory is let go by now.
        if kind == "kept" and _cut_off(*payload):
            return ""
        error: BaseException
        if kind == "exception":
            text, error = self.exception_text(payload), payload
            # Frames hold the tensors that point to XLA's memory; the traceback stays.
            clear_frames(payload)
        else:
            text, error = self._own_fault(kind, index, payload)
        # XLA's messages are UTF-8; an exception's text may hold lone surrogates.
        text = text.encode("utf-8", "replace").decode()
        known = record(text, error)
        calls = native().calls_here()[0]
        if _here.calls != calls:  # of several of one call, the handler tells the first
            _here.text, _here.calls = text, calls
        # Once for all devices that fail alike.
        if not known and runs_beside_others():
            _logger.error("%s\n%s", text, _WAITING)
        return text

    def exception_text(self, error: BaseException) -> str:
        """Type, message and torch-side traceback of an exception, and the arguments."""
        if isinstance(error, StaleClosureError):
            return f"{self._label}: {type(error).__name__}: {error}{_JITTED}"
        advice, frames = advice_on(error, self._inputs), _torch_traceback(error)
        if isinstance(error, BridgeError) and not frames:
            # The function has done its part: what it gave was objected to.
            return f"{self._label}: {type(error).__name__}: {error}\n{self._argument_table()}"
        return (
            f"{self._label}: the torch function raised {type(error).__name__}: {error}\n{advice}"
            f"torch-side traceback:\n{frames or _traceback(error)}{self._argument_table()}"
        )

    def _own_fault(self, kind: str, index: int, payload: Any) -> tuple[str, TorchExecutionError]:
        if kind == "mutated":
            text = mutation_message(self._label, self._input_path(index))
            return text, MutationError(text, callable_name=self._label)
        if kind == "kept":
            text = (
                f"{self._label}, output `{self._outputs[index].path}`: a tensor that shares its "
                "memory was kept, and it could not be given memory of its own: it must not be used "
                "any more. Say `execution: {outputs: copy}`."
            )
            return text, EscapeError(text, callable_name=self._label)
        if kind == "escaped":
            text = self._escaped(index, payload)
            return text, EscapeError(text, callable_name=self._label)
        text = self._bad_output(kind, index, payload)
        differs = kind in ("output_count", "output_shape", "output_dtype")
        return text, OutputError(text, callable_name=self._label, differs=differs)

    def _escaped(self, index: int, payload: Any) -> str:
        address, size_bytes, storage = payload
        is_cut_off = _cut_off(address, size_bytes, storage)
        path = self._input_path(index)
        fate = (
            "The tensor was given a copy of its own. (A numpy array or a DLPack capsule made from "
            "it would still point to XLA's memory: drop it.)"
            if is_cut_off
            else "It could not be given a copy of its own: it must not be used any more."
        )
        return (
            f"{self._label}, input `{path}`: expected torch to be done with it when the call ends, "
            f"but a tensor that shares its memory was kept (in an attribute, a list, a closure or "
            f"an autograd graph). XLA takes that memory back after the call. {fate} Keep "
            f"`{path}.clone()` instead; or, if only torch's own record for gradients keeps it, "
            "call under `torch.no_grad()`."
        )

    def _bad_output(self, kind: str, index: int, payload: Any) -> str:
        expected = ", ".join(f"`{sig.path}` {_torch_words(sig)}" for sig in self._outputs)
        if kind == "output_count":
            got = f"{type(payload).__name__}"
            if isinstance(payload, (tuple, list)):
                got += f" of {len(payload)}"
            return f"{self._label}: expected {len(self._outputs)} tensors ({expected}), got {got}."
        if kind in ("input_dtype", "result_dtype"):
            is_input = kind == "input_dtype"
            sig = (self._inputs if is_input else self._outputs)[index]
            return (
                f"{self._label}, {'input' if is_input else 'output'} `{sig.path}`: expected a "
                f"dtype that torch has, for {_torch_words(sig)}; XLA's buffer of {sig.dtype} has "
                "one that it does not have. Cast to one that both have: dtype_j2t tells."
            )
        sig = self._outputs[index]
        where = f"{self._label}, output `{sig.path}`: planned {_torch_words(sig)}"
        if kind == "output_type":
            return f"{where}, but torch returned {type(payload).__name__}. Return a tensor."
        if kind == "output_layout":
            return (
                f"{where}, but torch returned a {payload.layout} tensor on {payload.device} that "
                "has no plain memory. Return a dense tensor (`.to_dense()`, `.dequantize()`)."
            )
        got = f"{payload.dtype}{list(payload.shape)} on {payload.device}".removeprefix("torch.")
        advice = {
            "output_shape": f"Shapes must follow from the arguments' shapes, not from their values"
            f"{_WHERE_THEY_DO if not self._contract else '.'}",
            "output_dtype": "Dtypes must follow from the arguments' dtypes, not from their values.",
            "output_device": "Return tensors on the device of the inputs.",
        }.get(kind, "")
        return f"{where}, but torch returned {got}. {advice} {self._contract}".rstrip()

    def _argument_table(self) -> str:
        rows = [(sig.path, str(sig)) for sig in self._inputs]
        rows += [(path, f"{text} (static)") for path, text in self._static]
        if not rows:
            return "arguments: none"
        width = max(len(path) for path, _ in rows)
        return "arguments:\n" + "\n".join(f"  {path:<{width}}  {text}" for path, text in rows)

    def _input_path(self, index: int) -> str:
        return self._inputs[index].path


def _label_in(text: str) -> str:
    """``INTERNAL: name@1.0.0: the torch function ...`` names the callable second."""
    parts = text.split(": ", 2)
    return parts[1] if len(parts) > 2 else ""


def _torch_words(sig: ArraySig) -> str:
    return f"{sig.torch_dtype}[{', '.join(map(str, sig.shape))}]"


def users_line(error: BaseException) -> str:
    """Where in the user's code an exception began, as `` at file:line: code``; empty if nowhere."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not frame.filename.startswith((_PACKAGE, _TORCH)):
            return f" at {frame.filename}:{frame.lineno}: `{frame.line}`"
    return ""


def _torch_traceback(error: BaseException) -> str:
    """The frames that are not ours; empty where every one is, and the failure is the bridge's."""
    frames = traceback.extract_tb(error.__traceback__)
    # Code that torch makes of graphs says nothing of what the user wrote.
    ours = (_PACKAGE, "<eval_with_key>")
    own = [frame for frame in frames if not frame.filename.startswith(ours)]
    return "".join(traceback.format_list(own))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__))


def clear_frames(error: BaseException | None) -> None:
    """Let go of what an exception's frames hold, and those of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            with contextlib.suppress(RuntimeError):  # a frame that is still running
                frame.clear()
                # Before Python 3.13 a frame whose locals somebody has read keeps a dict of them,
                # which is only brought up to date by reading them again.
                frame.f_locals  # noqa: B018
        error = error.__cause__ or error.__context__


def _cut_off(address: int, size_bytes: int, storage: torch.UntypedStorage | None) -> bool:
    """Give every tensor over this memory a copy of its own.

    Returns:
        Whether there was one that Python can find, and it could be done.
    """
    # The handler kept a handle, as autograd may hold the tensor in C++, where no search finds it.
    if storage is not None:
        return give_own_memory(storage)
    is_cut_off = False
    for thing in gc.get_objects():
        # type() and not isinstance(): some objects answer `__class__` with surprises.
        if not issubclass(type(thing), torch.Tensor) or is_fake(thing):
            continue
        try:
            shared = thing.untyped_storage()
            start = shared.data_ptr()
        except Exception:  # meta, sparse or functional tensors own no such memory
            continue
        if address <= start < address + max(size_bytes, 1):
            is_cut_off = give_own_memory(shared) or is_cut_off
    return is_cut_off
