"""What the engines share that run the function again: one way after the other, until one works."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ...functions import transforms
from ...functions.graph_capture import NotCapturedError
from ...functions.replaced_ops import with_plain_determinants, with_plain_norms
from ...functions.tensor_function import Core, TensorFunction, Transform, tangent_sig
from ...op.program import program_of
from ..refused_outputs import refusing_hidden
from .engine import DerivedFunction, Goal, NoWayError

_PULLBACK_WORDS: dict[Transform, str] = {
    "func": "torch.func.vjp",
    "autograd": "torch.autograd.grad",
}


@dataclass(frozen=True)
class Way:
    """One way to differentiate.

    Attributes:
        core: What to differentiate: a function's own core, or one that stands in for it.
        transform: What differentiates.
        backwards: A pushforward by reverse mode, twice.
        plain_attention: Without fused attention kernels.
        opaque: Without a graph: autograd records the function as it stands.
        remark: On the core, for messages.
    """

    core: Core
    transform: Transform
    backwards: bool
    plain_attention: bool
    opaque: bool = False
    remark: str = ""

    def words(self, kind: str) -> str:
        """For `explain`."""
        name = _PULLBACK_WORDS[self.transform]
        if kind == "pull":
            return name
        return f"{name}, twice" if self.backwards else "torch.func.jvp"


def cores_without_recording(fn: TensorFunction) -> tuple[Core, ...]:
    """What to differentiate, but for the stand-in in which autograd records writes."""
    if fn.stand_ins:
        return fn.stand_ins[:-1]
    return (fn.core,) if fn.loop is None else (fn.core, fn.loop)


def with_attention(
    fn: TensorFunction, core: Core, transform: Transform, backwards: bool, remark: str = ""
) -> Iterable[Way]:
    """The ways that differ in attention kernels alone, the best first."""
    if not fn.plain_attention:
        yield Way(core, transform, backwards, False, remark=remark)
    # Other attention kernels would draw other random numbers than the forward did.
    if fn.plain_attention or (fn.inference.attention and not fn.inference.random):
        yield Way(core, transform, backwards, True, remark=remark)


class RunAgain(abc.ABC):
    """An engine that runs the function again; see `engine.Engine`."""

    name: ClassVar[str]

    @abc.abstractmethod
    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""

    @abc.abstractmethod
    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""

    def build(self, goal: Goal) -> DerivedFunction:
        """The derivative by the first way that can be captured.

        Raises:
            NoWayError: None works.
            DifferentiationError: The function cannot be differentiated at all.
        """
        made = _made(goal)
        failures: list[str] = []
        for way in self.ways(goal):
            # Two functions: what runs has torch's own operations. What is differentiated again has
            # plain ones where torch's higher derivatives are wrong (normalisations from the second
            # order on, determinants from the third).
            base = way.core if goal.fn.order else with_plain_norms(way.core)
            lasting = way
            if goal.fn.inference.own_backwards:
                # What custom backwards take for constants shows under autograd alone.
                lasting = replace(way, transform="autograd")
            function = _transformed(goal, base, lasting, lasting=True)
            candidate = replace(
                made,
                core=with_plain_determinants(function) if goal.fn.order == 1 else function,
                transform=way.transform,
                way=way.words(goal.kind),
                plain_attention=way.plain_attention,
                opaque=way.opaque,
            )
            try:
                core = _transformed(goal, way.core, way, lasting=False)
                program = program_of(candidate, core)
            except NotCapturedError as error:
                how = " (attention by plain products)" if way.plain_attention else ""
                failures.append(f"{candidate.way}{how}{way.remark}: {error}")
                continue
            return DerivedFunction(candidate, program, tuple(failures))
        raise NoWayError(failures)


def _made(goal: Goal) -> TensorFunction:
    """The derivative as a tensor function, but for what it runs."""
    fn, ins, outs = goal.fn, goal.ins, goal.outs
    tangents = tuple(tangent_sig(fn.inputs[index], "tangent of") for index in ins)
    moved = tuple(tangent_sig(fn.outputs[index], "tangent of") for index in outs)
    if goal.kind == "pull":
        tangents = tuple(replace(sig, path=f"co{sig.path}") for sig in tangents)
        moved = tuple(replace(sig, path=f"co{sig.path}") for sig in moved)
        inputs, outputs = (*fn.inputs, *moved), tangents
    else:
        inputs = (*fn.inputs, *tangents)
        outputs = (*fn.outputs, *moved) if goal.primal else moved
    # Part of the op's key, so the same in every process.
    tag = f"{','.join(map(str, ins))}:{','.join(map(str, outs))}{'+' if goal.primal else ''}"
    word = "forward mode" if goal.kind == "push" else "backward"
    return replace(
        fn,
        label=f"{fn.label} ({word})",
        key=f"{fn.key}/{goal.kind}/{tag}",
        inputs=inputs,
        outputs=outputs,
        order=fn.order + 1,
        seeds=goal.seeds,
        # A repeat leaves nothing behind: buffers are updated once, by the forward.
        undone=fn.undone or goal.again,
        primals=fn.primal_count,
        # Looked for once, in the function itself.
        refuse_writes=None,
        stand_ins=(),
        once_differentiable=goal.once_differentiable,
    )


def _transformed(goal: Goal, function: Core, way: Way, *, lasting: bool) -> Core:
    """The derivative of a function, to be run, or (lasting) to be differentiated again."""
    count, label = len(goal.fn.inputs), goal.fn.label
    if not goal.fn.capturable:
        function = refusing_hidden(function, goal.fn, goal.ins, goal.outs)
    if goal.kind == "pull":
        return transforms.pullback(
            function, count, goal.ins, goal.outs, transform=way.transform, label=label
        )
    return transforms.pushforward(
        function,
        count,
        goal.ins,
        goal.outs,
        transform=way.transform,
        primal=goal.primal,
        label=label,
        # Forward-mode formulas must not be differentiated again; see `transforms.pushforward`.
        backwards=way.backwards or lasting,
    )
