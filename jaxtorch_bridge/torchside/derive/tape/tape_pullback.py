"""From cotangents of a function's results to those of its inputs, by the tape or by another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ....errors import BridgeError
from ....planner.array_signature import ArraySig
from ...functions.graph_capture import hooks_its_tensors
from ...functions.tensor_function import TensorFunction
from ...modules.recorded_calls import recording
from ...op.program import Program, Undo
from ..refused_outputs import refuse_hidden
from .batch_rules import BatchRules
from .recorded_run import Tape
from .tape_token import Tokens


@dataclass(eq=False)
class Layers:
    """What is known of the layers of a function that is a module, and of what its runs leave.

    Attributes:
        run_again: Its backward may run them, so that it has to be in one call with a forward.
        suspected: The latest run looked so.
        keep_inputs: A run that repeats it was seen to leave inputs with somebody.
    """

    run_again: bool = False
    suspected: bool = False
    keep_inputs: bool = False

    def note(self, suspected: bool) -> None:
        """After a run: whether others refer to layers now who did not before."""
        # Once says little: the first run of a copy may leave something that stays.
        self.run_again |= suspected and self.suspected
        self.suspected = suspected


@dataclass(eq=False)
class Pullback:
    """From (inputs, token, cotangents, seeds) to cotangents of inputs.

    Attributes:
        fn: What ran forward.
        tokens: Of its runs.
        record_again: The tape of another run, to be used before the call ends.
        ins: Inputs whose cotangents are asked for.
        outs: Outputs that have a cotangent.
        results: The cotangents of ``ins``.
        batch: Cotangents, and the results, have a batch of this size in front.
        one_by_one: Go through it one by one.
        into: Results that are written to tensors behind the operands.
        layers: Of the function; all its pullbacks share it.
        rules: Of torch, for a batch.
    """

    fn: TensorFunction
    tokens: Tokens
    record_again: Callable[[Sequence[torch.Tensor]], Tape]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    results: tuple[ArraySig, ...]
    batch: int | None = None
    one_by_one: bool = False
    into: tuple[int, ...] = ()
    layers: Layers = field(default_factory=Layers)
    rules: BatchRules = field(default_factory=BatchRules)

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """By the tape, or by another run where it is gone."""
        given = len(tensors) - len(self.into)
        tensors, buffers = tensors[:given], dict(zip(self.into, tensors[given:], strict=True))
        count = len(self.fn.inputs)
        operands, token = tensors[:count], tensors[count]
        cotangents = tensors[count + 1 : count + 1 + len(self.outs)]
        rest = tensors[count + 1 + len(cotangents) :]
        tape = self.tokens.take(token)
        if tape is not None:
            try:
                return self._pull(tape, operands, cotangents, buffers)
            except Exception as error:
                # A layer that the backward runs, and that nobody was seen to refer to, is empty by
                # now. What is wrong otherwise is so again.
                if isinstance(error, BridgeError) or not self.fn.closure.secluded:
                    raise
            found = self._again(buffers, *operands, *cotangents, *rest)
            self.layers.run_again = True
            return found
        return self._again(buffers, *operands, *cotangents, *rest)

    def batched(self, size: int, one_by_one: bool) -> Pullback:
        """For a batch of cotangents."""
        # Torch crashes in some hooks that users wrote, where it makes a batch of cotangents. It is
        # asked while planning: an evaluation in the middle of a call might wait for another call.
        alone = one_by_one or (self.fn.capturable and hooks_its_tensors(self.fn, self.ins))
        return replace(self, batch=size, one_by_one=alone, rules=BatchRules())

    def writing(self, into: tuple[int, ...]) -> Pullback:
        """To write some results where they are to be, as soon as they are found."""
        return replace(self, into=into)

    def _pull(
        self,
        tape: Tape,
        operands: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor],
        buffers: Mapping[int, torch.Tensor],
    ) -> list[torch.Tensor]:
        refuse_hidden(self.fn, self.ins, self.outs, tape.judgement.hidden)
        front = () if self.batch is None else (self.batch,)
        found: Sequence[torch.Tensor | None]
        if self.batch is None:
            places = {self.ins[place]: buffer for place, buffer in buffers.items()}
            found = self._pull_by(tape, operands, cotangents, keep=False, into=places)
        elif not self.batch:
            found = [None] * len(self.ins)
        # As in hooks, so in some backwards.
        elif self.one_by_one or tape.has_own_backwards:
            found = self._pull_each(tape, operands, cotangents)
        else:
            try:
                found = self._pull_batch(tape, operands, cotangents)
            except Exception:
                # Not every backward can be batched; what was wrong otherwise is raised again here.
                found = self._pull_each(tape, operands, cotangents)
        return [
            torch.zeros(
                # Of the signature sizes may be symbols, in a program that is exported.
                (*front, *operands[index].shape),
                dtype=getattr(torch, sig.torch_dtype),
                device=self._device,
            )
            if one is None
            else one
            for one, sig, index in zip(found, self.results, self.ins, strict=True)
        ]

    def _pull_batch(
        self, tape: Tape, operands: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]
    ) -> list[torch.Tensor | None]:
        nodes = tape.nodes
        if self.rules.newer(nodes):
            return self._pull_by(tape, operands, cotangents, keep=True, batched="newer rules")
        found = self._pull_by(tape, operands, cotangents, keep=True, batched="older rules")
        # What is checkpointed runs layers again, here as in a backward.
        with tape.reading(operands), recording():
            self.rules.try_out(nodes)
        return found

    def _pull_by(
        self,
        tape: Tape,
        operands: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor],
        **how: Any,
    ) -> list[torch.Tensor | None]:
        return tape.pull(operands, self.ins, self.outs, cotangents, label=self.fn.label, **how)

    def _pull_each(
        self, tape: Tape, operands: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]
    ) -> list[torch.Tensor | None]:
        rows = [
            self._pull_by(tape, operands, each, keep=True) for each in zip(*cotangents, strict=True)
        ]
        return [
            None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True)
        ]

    @property
    def _device(self) -> str:
        return self.fn.device

    def _again(
        self, buffers: Mapping[int, torch.Tensor], *tensors: torch.Tensor
    ) -> list[torch.Tensor]:
        fn = self.fn
        count = len(fn.inputs)
        # Both have been cast, or need not be.
        inputs, cotangents = uncast(fn.inputs), tensors[count : count + len(self.outs)]

        def run(*operands: torch.Tensor) -> list[torch.Tensor]:
            # Modules are cleaned up behind the backward, which may run their layers.
            with recording():
                tape = self.record_again(operands)
                try:
                    found = self._pull(tape, operands, cotangents, buffers)
                finally:
                    self.layers.keep_inputs |= tape.close(kept=self.layers.keep_inputs)
                    # What it refers to must not look as if it was kept.
                    del tape
            return found

        program = Program(
            run,
            inputs,
            self.results,
            fn,
            fn.context.with_grad(),
            seeds=fn.seeds_of_repeats,
            undo=Undo.of(fn),
            eager=True,
        )
        return program.run(*tensors[:count], *tensors[count + len(self.outs) :])


def uncast(sigs: Sequence[ArraySig]) -> tuple[ArraySig, ...]:
    """As they lie in XLA's memory: what is saved by reference is read from there again."""
    return tuple(replace(sig, torch_dtype=sig.dtype) for sig in sigs)
