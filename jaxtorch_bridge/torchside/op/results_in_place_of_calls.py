"""Results of a function's own calls that torch writes straight into XLA's buffers.

There is no graph to change: the function's Python code runs. So a mode watches its ops, and has
the one that makes a result write it where XLA wants it, by its ``out=`` form. Watching costs some
microseconds an op, which only large results are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..._compat import torch_graphs
from ..._compat import torch_internals as compat
from ...choices import OutputsMode
from ...planner.array_signature import ArraySig
from ..observe.result_makers import Maker, counts, operands
from ..observe.watched_run import Observed
from .results_in_place import Written, unfit

# What copying costs for each op that is watched: a few microseconds of Python.
_BYTES_AN_OP = 256 << 10
_BYTES_A_CALL = 512 << 10


@dataclass(frozen=True)
class _Target:
    """An op and how it writes to a buffer."""

    maker: Maker
    form: torch_graphs.OutForm
    position: int

    def is_this(self, op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call of an op is the one that was planned."""
        return op is self.maker.op and operands(args, kwargs) == self.maker.operands

    def shaped(self, buffer: torch.Tensor) -> torch.Tensor:
        """The buffer as the op's result is laid out."""
        if buffer.shape == self.maker.shape and buffer.stride() == self.maker.stride:
            return buffer
        return buffer.as_strided(self.maker.shape, self.maker.stride)


def written_by_calls(
    run: Callable[..., Any],
    observed: Observed,
    outputs: Sequence[ArraySig],
    device: str,
    mode: OutputsMode,
    *,
    refused: str,
    run_out: Callable[..., Any] | None = None,
) -> Written:
    """How a function's calls get their results into XLA's buffers.

    Args:
        run: Flat tensors to flat results.
        observed: What the function did while it was watched.
        outputs: Its results.
        device: ``cpu`` or ``cuda``.
        mode: What the contract says; ``auto``: where it pays.
        refused: Why none may be, or the empty string.
        run_out: Calls the function with ``out=``: the tensors behind its inputs.
    """
    if mode == "copy":
        refused = "execution.outputs is copy"
    elif not observed.makers:
        refused = refused or "the function was not seen abstractly"
    elif observed.records:
        refused = refused or "autograd records what makes it, and may keep it"
    if run_out is not None and not refused and not any(unfit(sig, mode, 0) for sig in outputs):
        words = ("in place, by the function's own `out=`",) * len(outputs)
        return Written(run_out, tuple(range(len(outputs))), words)
    texts: list[str] = []
    targets: dict[int, _Target] = {}
    watched = _BYTES_A_CALL + _BYTES_AN_OP * observed.op_count
    for index, sig in enumerate(outputs):
        maker = None if refused else observed.makers[index]
        found = refused or unfit(sig, mode, watched) or _target(maker, len(targets), device)
        if isinstance(found, _Target):
            targets[index] = found
            texts.append(f"in place, by {found.form.target}")
        else:
            texts.append(f"copied: {found}")
    if not targets:
        return Written(None, (), tuple(texts))
    by_number = {target.maker.number: target for target in targets.values()}
    return Written(_WritingCall(run, by_number), tuple(targets), tuple(texts))


def _target(maker: Maker | None, position: int, device: str) -> _Target | str:
    """How a result is written in place, or why it cannot be."""
    if maker is None:
        return "it is an input, a view of one, or a part of something larger"
    form = torch_graphs.out_form(maker.op, device)
    if form is None or len(form.names) > 1:
        return f"{maker.op} has no form that writes in place"
    return _Target(maker, form, position)


@dataclass(frozen=True, eq=False)
class _WritingCall:
    """Calls a function that writes to the tensors behind its inputs."""

    run: Callable[..., Any]
    targets: dict[int, _Target]

    def __call__(self, *tensors: torch.Tensor) -> Any:
        split = len(tensors) - len(self.targets)
        with _Writing(self.targets, tensors[split:]):
            return self.run(*tensors[:split])


class _Writing(compat.TorchDispatchMode):
    """Has ops write their results to buffers, if they are the ops that were planned."""

    def __init__(self, targets: dict[int, _Target], buffers: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._targets = targets
        self._buffers = buffers
        self._number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not counts(func):
            return func(*args, **kwargs)
        target = self._targets.get(self._number)
        self._number += 1
        if target is None or not target.is_this(func, args, kwargs):
            return func(*args, **kwargs)
        buffer = target.shaped(self._buffers[target.position])
        return target.form.run(buffer, args, kwargs)
