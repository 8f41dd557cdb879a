"""The engine of tapes: the function runs once under autograd, whose record waits for the backward.

Nothing is captured and nothing is copied between the two: what torch would hold it holds, and
what lies in XLA's memory is read from the backward call's own operands (see `tape`). The record
is found by a number, the one residual that goes through XLA. Where it is gone, dropped or used up,
the function runs again, so that only the cost depends on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...._compat.torch.autograd import refuses_hooks
from ...closure.closure_guard import ClosureGuard
from ...functions.graph_capture import NotCapturedError
from ...functions.one_by_one_notice import warn_one_by_one
from ...functions.tensor_function import Core, TensorFunction
from ...functions.unrecorded_backward import refuse_lacking
from ...observe.guarded_run import Guarded
from ...observe.hidden_gradients import JudgedRuns, Judgement
from ...observe.rare_watch import RareWatch
from ...op.program import Program, Undo
from ..tape.expected_tape import ExpectedTape, expected_tape
from ..tape.recorded_run import Memory, Tape, record, run_plainly
from ..tape.saved_tensors import copies_are_cheaper
from ..tape.tape_pullback import Layers, Pullback, uncast
from ..tape.tape_token import TOKEN, Tokens
from .engine import Goal, LinearCallProgram, linear_sigs


class KeptTape:
    """See the module. One forward and one backward, for all that autograd can differentiate."""

    name = "tape"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        fn = goal.fn
        if fn.terms.backend == "xla":
            return "XLA runs graphs alone"
        if fn.terms.residuals == "recompute":
            return "the contract says `residuals: recompute`"
        if fn.order and fn.derivable_by_graph:
            return "a graph of the next derivative runs no Python code of the last one's"
        return ""

    def build(self, goal: Goal) -> RecordedForward | None:
        """Forward and linear part; None if no output depends on the inputs."""
        fn = goal.fn
        guard = ClosureGuard(fn.closure, held=fn.capturable)
        expected = expected_tape(fn, goal.ins, goal.refused)
        if not expected.outs:
            return None
        if expected.function is fn.loop:
            why = "what is recorded of a call by torch.vmap cannot be gone through"
            warn_one_by_one(fn, fn.label, why)
        memory: Memory = "hooked"
        if expected.hooks_work is False or fn.transform == "func":
            memory = "unhooked"
        elif fn.order:
            # Torch never lets go of a record of a derivative of checkpointed code that nobody
            # went back through.
            memory = "copied"
        return RecordedForward(fn, goal.ins, expected, guard, memory)


@dataclass(eq=False)
class RecordedForward:
    """A forward that keeps a tape, and the pullback that reads it; see `engine.Kept`.

    Attributes:
        fn: What runs.
        grad_inputs: Inputs to differentiate by.
        expected: What will be recorded.
        guard: Tells when the function's surroundings have changed since.
        memory: What tapes hold of the inputs; see `recorded_run.record`.
    """

    fn: TensorFunction
    grad_inputs: tuple[int, ...]
    expected: ExpectedTape
    guard: ClosureGuard
    memory: Memory
    _tokens: Tokens = field(init=False)
    _watch: RareWatch = field(init=False)
    _guarded: Guarded = field(init=False)
    _judged: JudgedRuns | None = field(init=False, default=None)
    _seen: bool = field(init=False)
    _hooks_seen: bool = field(init=False)
    _layers: Layers = field(init=False)
    # What hooks last saw torch keep, where runs that are not watched do better without them.
    _unhooked_bytes: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        fn = self.fn
        self._tokens = Tokens(fn)
        self._watch = RareWatch()
        self._guarded = Guarded(self.function, fn.label, fn.inputs, first_on_copies=False)
        self._seen = fn.inference.seen
        if not fn.capturable:
            # Of others, results that must not be differentiated are told ahead.
            self._judged = JudgedRuns(always=fn.inference.grads_inside)
        self._hooks_seen = self.expected.hooks_work is not None
        self._layers = Layers()

    @property
    def engine(self) -> str:
        """In one word, for plans."""
        return "tape"

    @property
    def diff_outputs(self) -> tuple[int, ...]:
        """Outputs that carry a tangent."""
        return self.expected.outs

    @property
    def size_bytes(self) -> int | None:
        """What torch will hold between forward and backward; None if only a run can tell."""
        return self.expected.size_bytes

    @property
    def words(self) -> str:
        """What is kept, for `explain`."""
        size = self.size_bytes
        what = "what autograd saves" if size is None else f"{size} bytes"
        how = " and copies of the inputs" if self.memory != "hooked" else ""
        if self._layers.run_again:
            return "the function runs again, since its backward runs layers; nothing is kept"
        words = f"tape: the function runs once, and torch keeps {what}{how} for the backward pass"
        count, held = self._tokens.held()
        return f"{words}; now {held} bytes of {count} runs" if count else words

    @property
    def under_checkpoint(self) -> str:
        """What `jax.checkpoint` makes of it, for `explain`; empty if it makes no difference."""
        if self._layers.run_again:
            return ""
        # Policies that keep what they know nothing of keep the token.
        return (
            "jax.checkpoint: kept by everything_saveable and save_anything_except_these_names; "
            "with other policies the function runs again"
        )

    @property
    def forward(self) -> Program:
        """Outputs, then the token, then generator states where it draws."""
        return Program(
            self._run,
            uncast(self.fn.inputs),
            self.fn.outputs,
            self.fn,
            self.fn.context.with_grad(),
            seeds=self.fn.seeds,
            also_gives=(TOKEN,),
            gives_states=self.fn.draws,
            eager=True,
        )

    def linear_call(
        self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> LinearCallProgram:
        """Cotangents of ``ins`` from cotangents of ``outs``.

        Raises:
            NotCapturedError: Tangents are asked for: the function runs again.
        """
        if not transposed:
            raise NotCapturedError("a tape gives cotangents alone")
        fn = self.fn
        cotangents, results = linear_sigs(fn, True, ins, outs)
        seeds = fn.seeds_of_repeats
        inputs = uncast(fn.inputs)
        pullback = Pullback(
            fn,
            self._tokens,
            self._record_again,
            ins,
            outs,
            results,
            layers=self._layers,
        )
        program = Program(
            pullback,
            (*inputs, TOKEN, *cotangents, *seeds),
            results,
            fn,
            fn.context.with_grad(),
            eager=True,
            repeats_draws=bool(seeds),
            batched_core=pullback.batched,
            writing=pullback.writing,
        )
        # Of the linear call's operands: inputs (behind which a key may come), the token, states.
        token = len(fn.operands)
        first_linear = token + 1 + (len(seeds) if fn.draws else 0)
        states = range(token + 1, first_linear) if fn.draws else range(len(fn.inputs), token)
        operands = (
            *range(len(fn.inputs)),
            token,
            *range(first_linear, first_linear + len(outs)),
            *(states if seeds else ()),
        )
        tag = f"{','.join(map(str, ins))}:{','.join(map(str, outs))}"
        return LinearCallProgram(program, operands, "backward", f"backward/{tag}")

    @property
    def function(self) -> Core:
        """What autograd records; what ``torch.compile`` makes of it saves by the same hooks."""
        return self.fn.recordable or self.expected.function

    def _run(self, *tensors: torch.Tensor) -> list[Any]:
        function, memory, saved_bytes = self.function, self.memory, None
        if self._watch.due() or not self._seen:
            # Of what nobody has seen, the first run is on copies; see `Guarded`.
            function = functools.partial(self._watched, None if self._seen else tensors)
            if not self._seen and memory == "hooked":
                memory = "copied"
        elif self._unhooked_bytes is not None:
            memory, saved_bytes = "unhooked", self._unhooked_bytes
        if self._layers.run_again:
            results = run_plainly(function, tensors, self._dtypes)
            self._seen = True
            return [*results, self._tokens.put(None, tensors[0].device)]
        function, judgement = self._judging(function)
        # Torch tells in the middle of a run that it allows no hooks.
        put_back = None if self._hooks_seen else self._begin()
        try:
            results, tape, suspected = record(
                function,
                tensors,
                self.grad_inputs,
                self._dtypes,
                memory=memory,
                saved_bytes=saved_bytes,
            )
        except RuntimeError as error:
            if not refuses_hooks(error):
                raise
            self.memory = "unhooked"
            if put_back is None:
                raise RuntimeError(
                    f"{self.fn.label}: it uses torch.func, as it did in no run before, where "
                    "torch does not let what it saves be looked at. Nothing is known of what this "
                    "run has left behind; the next ones do without."
                ) from error
            put_back()
            return self._run(*tensors)
        self._seen = self._hooks_seen = True
        self._layers.note(suspected)
        if tape is None:
            self.memory = self.memory if suspected else "copied"
            return [*results, self._tokens.put(None, tensors[0].device)]
        tape.judgement = judgement()
        if tape.saved is not None:
            # Where there are copies anyway, nothing speaks for hooks but that they count.
            unhooked = self.memory == "copied" or copies_are_cheaper(*tape.saved, tensors)
            self._unhooked_bytes = tape.saved[1] if unhooked else None
        return [*results, self._tokens.put(tape, tensors[0].device)]

    def _begin(self) -> Callable[[], None]:
        """Before a run that may have to begin again."""
        fn = self.fn
        states = fn.generators.states(fn.device)
        put_back = Undo.of(fn).begin()

        def begin_again() -> None:
            put_back()
            fn.generators.put_back(states, fn.device)

        return begin_again

    def _record_again(self, tensors: Sequence[torch.Tensor]) -> Tape:
        """The tape of another run, to be used before this call ends."""
        function, judgement = self._judging(self.function)
        _, tape, _ = record(function, tensors, self.grad_inputs, self._dtypes, memory="borrowed")
        if tape is None:
            raise AssertionError("what is borrowed cannot escape")
        tape.judgement = judgement()
        return tape

    def _judging(self, function: Core) -> tuple[Core, Callable[[], Judgement]]:
        """A function, and what is to be thought of its latest run."""
        judged, found = self._judged, Judgement()
        if judged is None:
            return function, Judgement

        def run(*tensors: torch.Tensor) -> list[Any]:
            nonlocal found
            results, found = judged.run(function, tensors, self.grad_inputs)
            return results

        return run, lambda: found

    @property
    def _dtypes(self) -> list[torch.dtype]:
        return [getattr(torch, sig.torch_dtype) for sig in self.fn.inputs]

    def _watched(
        self, originals: Sequence[torch.Tensor] | None, *tensors: torch.Tensor
    ) -> Sequence[torch.Tensor]:
        if originals is not None:
            seen = [one.to(dtype) for one, dtype in zip(originals, self._dtypes, strict=True)]
            results = list(self._guarded.run_on_copies(seen, tensors))
        elif self.fn.inference.seen:
            results = list(self.function(*tensors))
        else:
            results = list(self._guarded.run_watched(*tensors))
        refuse_lacking(self.fn.label, [results[index] for index in self.diff_outputs])
        return results
