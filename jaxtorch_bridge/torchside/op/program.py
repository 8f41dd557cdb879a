"""What an op runs, as data: a function over flat tensors, and what has to be done around it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ...planner.array_signature import ArraySig
from ..closure.closure_guard import ClosureGuard
from ..closure.closure_state import ClosureState
from ..functions.graph_capture import capture
from ..functions.tensor_function import Core, TensorFunction
from ..handler.torch_context import TorchContext
from ..randomness.generator_seeding import drawing_from_key

# int32, which JAX holds with x64 on and off.


@dataclass(frozen=True)
class Undo:
    """Puts back what a repeated run of a function changes around it."""

    updated: tuple[torch.Tensor, ...]
    closure: ClosureState

    @classmethod
    def of(cls, fn: TensorFunction) -> Undo:
        """For runs of a tensor function."""
        # Nobody has seen what a function writes to that could not be traced: any buffer, then.
        updated = fn.updated if fn.inference.traced else tuple(fn.closure.buffers())
        return cls(updated, fn.closure)

    def begin(self) -> Callable[[], None]:
        """Before a run; what is returned puts back what was there."""
        # Values too: the snapshot knows which objects there are, and not what was written to them.
        before = [tensor.detach().clone() for tensor in self.updated]
        surroundings = self.closure.snapshot()

        def put_back() -> None:
            # Into the same tensors, which others refer to; autograd must not record it.
            with torch.no_grad():
                for tensor, value in zip(self.updated, before, strict=True):
                    tensor.copy_(value)
            surroundings.restore()

        return put_back

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """As the class says."""
        put_back = self.begin()
        try:
            yield
        finally:
            put_back()


@dataclass(frozen=True, eq=False)
class Program:
    """A core and its surroundings.

    Operands are the core's inputs, then ``seeds``; results are the core's outputs, then
    ``also_gives``, then generator states if ``gives_states``.

    Attributes:
        core: Flat tensors, in the dtypes that torch is to see, to flat tensors.
        inputs: Of the core.
        outputs: Of the core.
        home: The tensor function that it belongs to.
        context: Torch's settings to run under.
        seeds: What to draw from: a key or generator states, as operands.
        gives_states: Return the generators' states as they were before the run.
        guard: Refuses to run a graph that is out of date.
        undo: Puts back what the run changes.
        eager: The core is no graph: autograd may record what it does.
        also_gives: What the core gives behind its outputs.
        repeats_draws: It may run the function again, and draw what that drew.
        batched_core: Of a core that does not depend on how the function is batched: from the size
            of a batch of its linear operands, and whether to go one by one, to its batched form.
        writing: Of a core that is no graph and can write results to tensors behind its inputs: its
            form that so writes some of them.
        no_graph: Why there is no graph of it, where some were tried.
    """

    core: Core
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    home: TensorFunction
    context: TorchContext
    seeds: tuple[ArraySig, ...] = ()
    gives_states: bool = False
    guard: ClosureGuard | None = None
    undo: Undo | None = None
    eager: bool = False
    also_gives: tuple[ArraySig, ...] = ()
    repeats_draws: bool = False
    batched_core: Callable[[int, bool], Core] | None = None
    writing: Callable[[tuple[int, ...]], Core] | None = None
    no_graph: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.home.device

    @property
    def operands(self) -> tuple[ArraySig, ...]:
        """What the op takes."""
        return (*self.inputs, *self.seeds)

    @property
    def results(self) -> tuple[ArraySig, ...]:
        """What the op gives."""
        return (*self.outputs, *self.extra_results)

    @property
    def extra_results(self) -> tuple[ArraySig, ...]:
        """What it gives behind the core's outputs."""
        states = self.home.generators.sigs(self.device) if self.gives_states else ()
        return (*self.also_gives, *states)

    def runner(self, core: Core) -> Core:
        """What runs a core in place of its own, with as little around it as can be.

        Args:
            core: Takes tensors to write to behind the operands.
        """
        casts = any(sig.dtype != sig.torch_dtype for sig in self.inputs)
        compared = self.home.compare is not None and not self.eager
        if casts or compared or self.seeds or self.gives_states or self.undo is not None:
            return functools.partial(self.run_into, core)
        guard = self.guard
        if guard is None:
            return core

        def run(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
            guard.check()
            return core(*tensors)

        return run

    def run(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Run on tensors of the JAX-side dtypes.

        Raises:
            StaleClosureError: The graph is out of date.
        """
        return self._run(self.core, tensors, ())

    def run_into(self, core: Core, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """The same with a core that writes to the tensors behind the operands."""
        count = len(self.operands)
        return self._run(core, tensors[:count], tensors[count:])

    def _run(
        self, core: Core, tensors: Sequence[torch.Tensor], buffers: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Run.

        Raises:
            StaleClosureError: The graph is out of date.
            OutputError: It is not what calls do.
        """
        # Before anything runs: what a graph out of date would compute is wrong without an error.
        if self.guard is not None:
            self.guard.check()
        count = len(self.inputs)
        extras = tensors[count:]
        # As they are before the core draws: a repeated run begins with these.
        before = self.home.generators.states(self.device) if self.gives_states else []
        inputs = [
            tensor if sig.dtype == sig.torch_dtype else tensor.to(getattr(torch, sig.torch_dtype))
            for sig, tensor in zip(self.inputs, tensors[:count], strict=True)
        ]
        if self.home.compare is not None and not self.eager:
            with Undo.of(self.home).scope():
                self.home.compare(self.inputs, inputs)
        if self.undo is None and not self.seeds:
            return [*core(*inputs, *buffers), *before]
        with contextlib.ExitStack() as stack:
            if self.undo is not None:
                stack.enter_context(self.undo.scope())
            if self.seeds and self.home.keyed:
                stack.enter_context(drawing_from_key(extras[0]))
            elif self.seeds:
                stack.enter_context(self.home.generators.drawing_from(extras, self.device))
            results = list(core(*inputs, *buffers))
        return [*results, *before]


def program_of(fn: TensorFunction, core: Core | None = None) -> Program:
    """What runs a derived or batched function: its graph, or where there can be none, itself.

    Args:
        fn: What to compute.
        core: The same in another way, which is better to run but not to differentiate.

    Raises:
        NotCapturedError: It cannot be traced.
    """
    undo = Undo.of(fn) if fn.undone else None
    core = core or fn.core
    program = Program(
        core,
        fn.inputs,
        fn.outputs,
        fn,
        # The caller's grad mode may be off, and a derivative is made by what autograd records.
        fn.context.with_grad(),
        seeds=fn.seeds,
        undo=undo,
        eager=True,
    )
    if not fn.capturable:
        return program
    # From before: a change meanwhile makes the graph out of date.
    guard = ClosureGuard(fn.closure)
    graph = capture(
        fn,
        core,
        fn.inputs,
        fn.outputs,
        plain_attention=fn.plain_attention,
    )
    return replace(
        program,
        core=graph,
        context=fn.context.without_grad(),
        # Only what writes to nothing is captured, so there is nothing to undo.
        undo=None,
        guard=guard,
        eager=False,
    )
