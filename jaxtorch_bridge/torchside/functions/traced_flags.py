"""What code is told that asks whether it is traced, while graphs are captured of it.

Calls run without any of torch's flags. A graph that is captured under them may be of another
branch, and then gives other derivatives without an error. So they are used in two cases alone:

- The function goes without them, and with them it does op by op the same (`_Harmless`). Derivatives
  and batches hide fakes from libraries that know those as well, so that only flags are left.
- It could not be evaluated without. Then the first run of a graph compares (`_Compared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..._compat.torch.capture.export_flags import tracing_flags
from ..._compat.torch.capture.graphs import trace_graph
from ...errors import OutputError
from ...planner.array_signature import ArraySig
from ...planner.output_inference import FLAG_WORDS, Flags
from ..observe.abstract_evaluation import fake_inputs
from .compare_results import difference
from .graph_capture import NotCapturedError, abstractly
from .same_traces import recorded_graph, same_graphs
from .tensor_function import TensorFunction


def with_flags(fn: TensorFunction) -> TensorFunction:
    """The same, with what graphs of a planned function are captured under."""
    inference = fn.inference
    if inference.flags:
        flags = inference.flags
        return replace(fn, flags=lambda: flags, compare=_Compared(fn))
    if inference.asks and fn.capturable:
        return replace(fn, flags=_Harmless(fn))
    return fn


class _Harmless:
    """The flags that change nothing of what a function does, found when first asked for."""

    def __init__(self, fn: TensorFunction) -> None:
        self._fn = fn
        self._found: Flags | None = None

    def __call__(self) -> Flags:
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> Flags:
        try:
            plain, recorded = self._trace("")
        except NotCapturedError:
            return ""
        # The one that says more first.
        candidates: tuple[Flags, ...] = ("exporting", "compiling")
        for flags in candidates:
            try:
                graph, record = self._trace(flags)
            except NotCapturedError:
                continue
            if record == recorded and same_graphs(plain, graph):
                return flags
        return ""

    def _trace(self, flags: Flags) -> tuple[Any, Any]:
        fn = self._fn
        function = fn.differentiable_cores[0]
        record: list[Any] = []
        with abstractly(fn, fn.plain_attention, flags) as mode:
            fakes = fake_inputs(mode, fn.inputs, fn.device)
            for fake, sig in zip(fakes, fn.inputs, strict=True):
                # Torch refuses this for integers.
                fake.requires_grad_(sig.differentiable)

            def watched(*tensors: torch.Tensor) -> list[torch.Tensor]:
                leaves = list(function(*tensors))
                record.append(recorded_graph(leaves, tensors))
                return leaves

            with torch.enable_grad():
                return trace_graph(watched, fakes, fn.device), record


class _Compared:
    """Compares what a function does with flags and without, once, when a graph of it first runs."""

    def __init__(self, fn: TensorFunction) -> None:
        self._fn = fn
        self._done = False

    def __call__(self, sigs: Sequence[ArraySig], tensors: Sequence[torch.Tensor]) -> None:
        """Compare on a program's inputs, if they begin with those of the function.

        Raises:
            OutputError: The function does something else where it is not told that it is traced.
        """
        fn = self._fn
        values = None if self._done else _single(fn.inputs, sigs, tensors)
        if values is None:
            return
        states = fn.generators.states(fn.device)

        def run(flags: Flags) -> Sequence[torch.Tensor]:
            # Copies: nobody has seen which of its inputs it writes to without flags.
            copies = [value.clone() for value in values]
            # As calls run it: with grad mode off, torch takes other ways through its own layers.
            with (
                fn.generators.drawing_from(states, fn.device),
                torch.set_grad_enabled(fn.context.grad),
                tracing_flags(flags),
            ):
                return [leaf.detach() for leaf in fn.core(*copies)]

        plain, told = run(""), run(fn.inference.flags)
        for sig, one, other in zip(fn.outputs, told, plain, strict=True):
            words = difference(one, other)
            if words is None:
                continue
            raise OutputError(
                f"{fn.label}, {sig.path}: the function was evaluated abstractly"
                f"{FLAG_WORDS[fn.inference.flags]}, as it could not be without. There it "
                f"returns something else than in a call{words}, and graphs of "
                "it (derivatives, batches, `backend: graph`) would do so as well. Have it do the "
                "same in both cases, or declare its outputs in a contract and do without the "
                "question.",
                callable_name=fn.label,
            )
        # Not after a difference: the next run is compared, and refused, again.
        self._done = True


def _single(
    wanted: Sequence[ArraySig], sigs: Sequence[ArraySig], tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor] | None:
    """The function's inputs, of a batch the first element's; None if a program has others."""
    if [sig.path for sig in sigs[: len(wanted)]] != [sig.path for sig in wanted]:
        return None
    found = []
    for sig, tensor in zip(wanted, tensors, strict=False):
        while tensor.ndim > len(sig.shape) and len(tensor):
            tensor = tensor[0]
        if tuple(tensor.shape) != sig.shape:
            return None
        found.append(tensor)
    return found
