"""How the outputs of a torch function came to be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .array_signature import OutputMeta

# fake: evaluated without memory. fake-plain-attention: the same with unfused attention.
# fake-without-cudnn: the same without cuDNN, whose recurrent layers look at where weights lie.
# symbols: with symbols for what follows from values. fake-with-symbols: the same, where graphs are
# captured with symbols too.
# contract, declared: taken from the contract alone, or from what the caller declared.
# call: a real run that was the caller's own.
# values: one extra real run on the arguments (a gradient outside of jit, `explain`).
# example, made-up: extra real runs, on the example given or on made-up values.
How = Literal[
    "fake",
    "fake-plain-attention",
    "fake-without-cudnn",
    "fake-with-symbols",
    "symbols",
    "contract",
    "declared",
    "call",
    "values",
    "example",
    "made-up",
]

# What code is told that asks whether it is traced: nothing, that distributions make no checks, that
# it is compiled, or exported as well (``torch.compiler.is_compiling`` and
# ``torch.compiler.is_exporting``).
Flags = Literal["", "unchecked", "compiling", "exporting"]

# Behind the words for how.
FLAG_WORDS: dict[str, str] = {
    "": "",
    "unchecked": ", without the checks of torch.distributions",
    "compiling": ", with torch.compiler.is_compiling()",
    "exporting": ", with torch.compiler.is_compiling() and is_exporting(), as torch.export does",
}

_WORDS: dict[str, str] = {
    "fake": "evaluated abstractly (FakeTensor: no FLOPs, no memory)",
    "fake-plain-attention": "evaluated abstractly (FakeTensor, attention by plain products)",
    "fake-without-cudnn": "evaluated abstractly (FakeTensor, without cuDNN)",
    "fake-with-symbols": "evaluated abstractly (FakeTensor, symbols for sizes that follow from "
    "values)",
    "symbols": "evaluated abstractly, with symbols for the values that the function looks at",
    "contract": "taken from the contract; the function was not run",
    "declared": "taken as declared; the function was not run",
    "call": "taken from the first eager call, whose result was used",
    "values": "taken from one extra run on the arguments of the call",
    "example": "taken from one extra run on the example arguments",
    "made-up": "taken from extra runs on made-up values (last resort)",
}


@dataclass(frozen=True)
class Inference:
    """Outputs of a function, and what was learnt on the way.

    Attributes:
        outputs: Flat outputs.
        structure: Opaque, hashable: how the flat outputs make up the function's result.
        how: Which way led to them.
        failures: Words on every way that was tried before, in order.
        closes_over_grad: The function uses tensors that require grad (a module's parameters),
            so autograd may record what it does.
        may_be_lazy: An output may carry a pending conjugation or negation.
        random: The function draws random numbers.
        live_draws: Why only its own Python code draws the right ones, in words; empty if a
            captured graph does too.
        drawn: Shapes of the random tensors that it was seen to draw, in order.
        strided_draws: It fills tensors that are not row-major with random numbers.
        updates_state: The function writes to tensors that it closes over (batch-norm's
            statistics).
        grads_inside: It calls ``torch.autograd.grad`` without ``create_graph``, so torch
            treats what comes out as constant.
        own_backwards: It was seen to run code with a backward that is not torch's: custom functions
            and custom operations.
        backward_hooks: Modules that it calls have hooks on their backward.
        attention: It uses fused attention kernels, or may.
        switches_grad: It enters ``torch.no_grad`` or the like, which forward mode does not heed.
        swaps: What it changes while it runs, in words: parameters of a module, for one.
        leaves_changed: Those of them that it does not put back.
        flags: What code was told that asks whether it is traced. Not empty only where it could not
            be evaluated otherwise: calls run without, and so may go another way.
        asks: The function, or a library that is not torch, asks that.
        made_up: The values that it was run on, in words, where nobody knew any.
        higher_order: It was seen to use torch's higher-order operators (``torch.cond``).
        containers: With outputs that a contract gives, how it is known in what they come: ``read``
            off the function, or the run that showed it.
    """

    outputs: tuple[OutputMeta, ...]
    structure: Any
    how: How
    failures: tuple[str, ...] = ()
    # True where nobody has seen the function run, as with outputs that a contract gives.
    closes_over_grad: bool = True
    may_be_lazy: bool = True
    random: bool = False
    live_draws: str = ""
    drawn: tuple[tuple[int, ...], ...] = ()
    strided_draws: bool = False
    updates_state: bool = False
    grads_inside: bool = False
    own_backwards: bool = False
    backward_hooks: bool = False
    attention: bool = False
    switches_grad: bool = False
    swaps: str = ""
    leaves_changed: str = ""
    flags: Flags = ""
    asks: bool = False
    made_up: tuple[str, ...] = ()
    higher_order: bool = False
    containers: How | Literal["", "read"] = ""

    @property
    def traced(self) -> bool:
        """Whether the function ran abstractly, so that its behaviour depends on shapes only."""
        return self.how.startswith("fake")

    @property
    def seen(self) -> bool:
        """Whether what was evaluated is also what calls run."""
        return self.traced and not self.flags

    @property
    def of_one_run(self) -> bool:
        """Whether the outputs are those of one run, which others need not give."""
        return self.how in ("call", "values", "example", "made-up")

    @property
    def extra_runs(self) -> int:
        """Real runs that nobody asked for."""
        if self.made_up:
            return len(self.made_up)
        return 1 if {self.how, self.containers} & {"values", "example"} else 0

    @property
    def words(self) -> str:
        """One line for `explain`."""
        if self.containers not in ("", "read"):
            return f"taken from the contract, and their containers as {_WORDS[self.containers]}"
        values = f": {', '.join(self.made_up)}" if self.made_up else ""
        return _WORDS[self.how] + values + FLAG_WORDS[self.flags]
