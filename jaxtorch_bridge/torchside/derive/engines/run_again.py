"""What the engines share that run the function again: one way after the other, until one works."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ...functions import transforms
from ...functions.graph_capture import NotCapturedError
from ...functions.replaced_ops import with_plain_determinants, with_plain_norms
from ...functions.source import Core, Source, Transform, tangent_sig
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
        form: What to differentiate: the function, or it with its writes in another form.
        transform: What differentiates.
        backwards: A pushforward by reverse mode, twice.
        plain_attention: Without fused attention kernels.
        opaque: Without a graph: autograd records the function as it stands.
        remark: On the form, for messages.
    """

    form: Core
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


def forms_without_recording(source: Source) -> tuple[Core, ...]:
    """What to differentiate, but for the form in which autograd records writes."""
    if source.forms:
        return source.forms[:-1]
    return (source.function,) if source.loop is None else (source.function, source.loop)


def with_attention(
    source: Source, form: Core, transform: Transform, backwards: bool, remark: str = ""
) -> Iterable[Way]:
    """The ways that differ in attention kernels alone, the best first."""
    if not source.plain_attention:
        yield Way(form, transform, backwards, False, remark=remark)
    # Other attention kernels would draw other random numbers than the forward did.
    if source.plain_attention or (source.inference.attention and not source.inference.random):
        yield Way(form, transform, backwards, True, remark=remark)


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
            base = way.form if goal.source.order else with_plain_norms(way.form)
            lasting = way
            if goal.source.inference.own_backwards:
                # What custom backwards take for constants shows under autograd alone.
                lasting = replace(way, transform="autograd")
            function = _transformed(goal, base, lasting, lasting=True)
            candidate = replace(
                made,
                function=with_plain_determinants(function) if goal.source.order == 1 else function,
                transform=way.transform,
                way=way.words(goal.kind),
                plain_attention=way.plain_attention,
                opaque=way.opaque,
            )
            try:
                core = _transformed(goal, way.form, way, lasting=False)
                program = program_of(candidate, core)
            except NotCapturedError as error:
                how = " (attention by plain products)" if way.plain_attention else ""
                failures.append(f"{candidate.way}{how}{way.remark}: {error}")
                continue
            return DerivedFunction(candidate, program, tuple(failures))
        raise NoWayError(failures)


def _made(goal: Goal) -> Source:
    """The derivative as a source, but for the function."""
    source, ins, outs = goal.source, goal.ins, goal.outs
    tangents = tuple(tangent_sig(source.inputs[index], "tangent of") for index in ins)
    moved = tuple(tangent_sig(source.outputs[index], "tangent of") for index in outs)
    if goal.kind == "pull":
        tangents = tuple(replace(sig, path=f"co{sig.path}") for sig in tangents)
        moved = tuple(replace(sig, path=f"co{sig.path}") for sig in moved)
        inputs, outputs = (*source.inputs, *moved), tangents
    else:
        inputs = (*source.inputs, *tangents)
        outputs = (*source.outputs, *moved) if goal.primal else moved
    # Part of the op's key, so the same in every process.
    tag = f"{','.join(map(str, ins))}:{','.join(map(str, outs))}{'+' if goal.primal else ''}"
    word = "forward mode" if goal.kind == "push" else "backward"
    return replace(
        source,
        label=f"{source.label} ({word})",
        key=f"{source.key}/{goal.kind}/{tag}",
        inputs=inputs,
        outputs=outputs,
        order=source.order + 1,
        seeds=goal.seeds,
        # A repeat leaves nothing behind: buffers are updated once, by the forward.
        undone=source.undone or goal.again,
        primals=source.primal_count,
        # Looked for once, in the function itself.
        refuse_writes=None,
        forms=(),
        once_differentiable=goal.once_differentiable,
    )


def _transformed(goal: Goal, function: Core, way: Way, *, lasting: bool) -> Core:
    """The derivative of a function, to be run, or (lasting) to be differentiated again."""
    count, label = len(goal.source.inputs), goal.source.label
    if not goal.source.capturable:
        function = refusing_hidden(function, goal.source, goal.ins, goal.outs)
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
