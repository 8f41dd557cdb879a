"""A torch function over flat tensors, as its derivatives and its batched forms need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ...planner.array_signature import ArraySig
from ...planner.output_inference import Flags, Inference
from ..closure.closure_state import ClosureState
from ..handler.torch_context import TorchContext
from ..randomness.generator_states import NO_GENERATORS, Generators
from .call_locks import NO_CALL_LOCKS, CallLocks
from .contract_terms import NO_TERMS, Terms

# Flat tensors, in the dtypes that torch is to see, to flat tensors.
Core = Callable[..., Sequence[torch.Tensor]]

# With what torch differentiates. func: torch.func.jvp and torch.func.vjp. autograd:
# torch.autograd.grad (twice for a pushforward).
Transform = Literal["func", "autograd"]


def _no_flags() -> Flags:
    return ""


@dataclass(frozen=True, eq=False)
class TensorFunction:
    """A differentiable torch function, and what is known of it.

    A derivative is a tensor function again, made of that of its function: never of a captured
    backward graph, which holds detached copies of what it saved.

    Attributes:
        key: Stable name; the op's key is made of it.
        core: What to differentiate.
        inputs: Of ``core``.
        outputs: Of ``core``.
        inference: What planning found out about the original function.
        updated: Closed-over tensors that it writes to.
        generators: What it draws from, besides torch's global generators.
        stateful: Functions with the same code and constants may still differ; see `code_digest`.
        order: Derivatives taken so far.
        transform: With what the latest was taken; None for the function itself.
        way: The same in words, for `explain`.
        plain_attention: It runs without fused attention kernels.
        seeds: What comes behind ``inputs`` so that every run draws the same: the words of a JAX
            key, or generator states.
        undone: A run leaves nothing behind, since another run has done it.
        once_differentiable: A backward inside is marked so.
        primals: For a derivative: how many of its first inputs are those of the function that it
            comes from in the end.
        call_locks: What its calls hold while they run.
        refuse_writes: Of a function that writes to its arguments: objects to a derivative by
            some of its inputs where torch does not record every write; see `declared_writes`.
            ``core`` writes to copies.
        stand_ins: Of a function that writes to its arguments: what may be differentiated in place
            of ``core``, the best first; in the last, autograd records the writes. Empty for
            others, which are differentiated as they stand.
        opaque: No graph could be captured of it, though the function itself can be traced.
        notices: What the caller of this callable has been warned of.
        compiled: A function, and what ``torch.compile`` makes of it; see `recordable`.
        one_by_one: A batched function, and what calls it for one element after the other; see
            `loop`.
        flags: What code that asks whether it is traced is told while graphs are captured; asked for
            when the first one is. See `traced_flags`.
        compare: Called with the inputs of a program that runs a graph, and their signatures:
            objects if the graph was captured under flags and calls do something else.
    """

    label: str
    key: str
    core: Core
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    inference: Inference
    updated: tuple[torch.Tensor, ...]
    closure: ClosureState
    context: TorchContext
    device: str
    x64: bool
    terms: Terms = NO_TERMS
    stateful: bool = True
    order: int = 0
    transform: Transform | None = None
    way: str = ""
    plain_attention: bool = False
    seeds: tuple[ArraySig, ...] = ()
    undone: bool = False
    once_differentiable: bool = False
    primals: int | None = None
    opaque: bool = False
    notices: set[str] = field(default_factory=set)
    call_locks: CallLocks = NO_CALL_LOCKS
    refuse_writes: Callable[[TensorFunction, Sequence[int]], None] | None = None
    stand_ins: tuple[Core, ...] = ()
    generators: Generators = NO_GENERATORS
    compiled: tuple[Core, Core] | None = None
    one_by_one: tuple[Core, Core] | None = None
    flags: Callable[[], Flags] = _no_flags
    compare: Callable[[Sequence[ArraySig], Sequence[torch.Tensor]], None] | None = None

    @property
    def differentiable_cores(self) -> tuple[Core, ...]:
        """What to differentiate, the best first."""
        return self.stand_ins or (self.core,)

    @property
    def recordable(self) -> Core | None:
        """``core`` compiled together with its derivative, where that was asked for."""
        # What is made of one with `replace` has another core, and keeps the field.
        if self.compiled is None or self.stand_ins or self.compiled[0] is not self.core:
            return None
        return self.compiled[1]

    @property
    def loop(self) -> Core | None:
        """What is the same as ``core``, and may be differentiated where that may not.

        Code that runs again in its own backward (``torch.utils.checkpoint``) does so when
        ``torch.vmap`` around it has ended.
        """
        # As above.
        if self.one_by_one is None or self.stand_ins or self.one_by_one[0] is not self.core:
            return None
        return self.one_by_one[1]

    @property
    def draws(self) -> bool:
        """Whether it may draw from generators as they stand when it runs."""
        return self.may_draw and not self.seeds

    @property
    def may_draw(self) -> bool:
        """Whether it may draw random numbers at all."""
        # Nobody has seen what a function draws that could not be traced.
        return self.inference.random or not self.inference.traced

    @property
    def keyed(self) -> bool:
        """Whether a JAX key says what it draws."""
        # Words of a key; generator states are uint8.
        return any(sig.dtype == "uint32" for sig in self.seeds)

    @property
    def seeds_of_repeats(self) -> tuple[ArraySig, ...]:
        """What a run must take to draw again what this one draws."""
        if self.seeds or not self.may_draw:
            return self.seeds
        # A run that repeats this one takes the states that this one began with.
        return self.generators.sigs(self.device)

    @property
    def order_of_draws_matters(self) -> bool:
        """Whether a key's numbers must come in the order in which torch's kernels fill memory."""
        strided = self.keyed and self.inference.strided_draws
        # XLA draws other numbers anyway, by places and not by memory.
        return strided and self.terms.backend != "xla"

    def names(self, indices: Sequence[int]) -> str:
        """Some of its inputs, for messages."""
        shown = [self.inputs[index].path for index in indices[:4]]
        hidden = len(indices) - len(shown)
        return ", ".join(shown) + (f" and {hidden} more" if hidden else "")

    @property
    def operands(self) -> tuple[ArraySig, ...]:
        """Everything an op of it takes."""
        return (*self.inputs, *self.seeds)

    @property
    def primal_count(self) -> int:
        """How many of its first inputs decide how the original function runs."""
        return len(self.inputs) if self.primals is None else self.primals

    @property
    def capturable(self) -> bool:
        """Whether a graph can stand for it: it depends on shapes only and writes to nothing."""
        if self.order_of_draws_matters:
            return False  # a graph fills such tensors in another order
        live = self.inference.updates_state or self.inference.live_draws or self.opaque
        return self.inference.traced and not live

    @property
    def derivable_by_graph(self) -> bool:
        """Whether graphs of its derivatives can be trusted."""
        return self.capturable and not self.closure.scripted


def tangent_sig(sig: ArraySig, word: str) -> ArraySig:
    """The array that carries a tangent or cotangent of ``sig``."""
    # Differentiable by default, whatever `sig` says: a derivative goes by its tangents.
    return ArraySig(f"{word} {sig.path or 'output'}", sig.shape, sig.dtype, sig.torch_dtype)
