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
from .source import Source


def with_flags(source: Source) -> Source:
    """The source of a planned function, with what its graphs are captured under."""
    inference = source.inference
    if inference.flags:
        flags = inference.flags
        return replace(source, flags=lambda: flags, compare=_Compared(source))
    if inference.asks and source.capturable:
        return replace(source, flags=_Harmless(source))
    return source


class _Harmless:
    """The flags that change nothing of what a function does, found when first asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
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
        source = self._source
        function = source.differentiable_forms[0]
        record: list[Any] = []
        with abstractly(source, source.plain_attention, flags) as mode:
            fakes = fake_inputs(mode, source.inputs, source.device)
            for fake, sig in zip(fakes, source.inputs, strict=True):
                # Torch refuses this for integers.
                fake.requires_grad_(sig.differentiable)

            def watched(*tensors: torch.Tensor) -> list[torch.Tensor]:
                leaves = list(function(*tensors))
                record.append(recorded_graph(leaves, tensors))
                return leaves

            with torch.enable_grad():
                return trace_graph(watched, fakes, source.device), record


class _Compared:
    """Compares what a function does with flags and without, once, when a graph of it first runs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._done = False

    def __call__(self, sigs: Sequence[ArraySig], tensors: Sequence[torch.Tensor]) -> None:
        """Compare on a program's inputs, if they begin with those of the function.

        Raises:
            OutputError: The function does something else where it is not told that it is traced.
        """
        source = self._source
        values = None if self._done else _single(source.inputs, sigs, tensors)
        if values is None:
            return
        states = source.generators.states(source.device)

        def run(flags: Flags) -> Sequence[torch.Tensor]:
            # Copies: nobody has seen which of its inputs it writes to without flags.
            copies = [value.clone() for value in values]
            # As calls run it: with grad mode off, torch takes other ways through its own layers.
            with (
                source.generators.drawing_from(states, source.device),
                torch.set_grad_enabled(source.context.grad),
                tracing_flags(flags),
            ):
                return [leaf.detach() for leaf in source.function(*copies)]

        plain, told = run(""), run(source.inference.flags)
        for sig, one, other in zip(source.outputs, told, plain, strict=True):
            words = difference(one, other)
            if words is None:
                continue
            raise OutputError(
                f"{source.label}, {sig.path}: the function was evaluated abstractly"
                f"{FLAG_WORDS[source.inference.flags]}, as it could not be without. There it "
                f"returns something else than in a call{words}, and graphs of "
                "it (derivatives, batches, `backend: graph`) would do so as well. Have it do the "
                "same in both cases, or declare its outputs in a contract and do without the "
                "question.",
                callable_name=source.label,
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
