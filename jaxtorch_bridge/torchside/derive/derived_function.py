"""A derivative as a torch function of its own, by the first engine that works.

What comes out is differentiated again in the same manner, so there is no end to the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ..._compat import torch_internals as compat
from ...errors import DifferentiationError
from ...planner.array_signature import ArraySig
from ..closure.closure_state import ClosureGuard
from ..functions import transforms
from ..functions.graph_capture import NotCapturedError, capture, is_once_differentiable
from ..functions.replaced_ops import with_plain_determinants, with_plain_norms
from ..functions.source import Core, Engine, Source, tangent_sig
from ..functions.unrecorded_backward import not_differentiable
from ..op.program import Program, Undo

_ENGINES: tuple[Engine, ...] = ("func", "autograd")
PULLBACK_WORDS: dict[str, str] = {
    "func": "torch.func.vjp",
    "autograd": "torch.autograd.grad",
}


@dataclass(frozen=True)
class Derived:
    """A derivative as a function of its own.

    Attributes:
        source: To be differentiated again.
        program: To be run.
        failures: Words on the ways that did not work.
    """

    source: Source
    program: Program
    failures: tuple[str, ...] = ()


def derive(
    source: Source,
    kind: Literal["push", "pull"],
    ins: tuple[int, ...],
    outs: tuple[int, ...],
    *,
    seeds: tuple[ArraySig, ...],
    again: bool,
    primal: bool = False,
) -> Derived:
    """A derivative as a function, by the first engine that works.

    Args:
        source: What to differentiate.
        kind: Forwards or backwards.
        ins: Inputs with a tangent or gradient.
        outs: Outputs with a tangent or cotangent.
        seeds: What to take so as to draw what was drawn; see `Source`.
        again: The function itself has run already: leave nothing behind.
        primal: Forwards: give the results as well.

    Raises:
        DifferentiationError: No engine works.
    """
    tangents = tuple(tangent_sig(source.inputs[index], "tangent of") for index in ins)
    moved = tuple(tangent_sig(source.outputs[index], "tangent of") for index in outs)
    if kind == "pull":
        tangents = tuple(replace(sig, path=f"co{sig.path}") for sig in tangents)
        moved = tuple(replace(sig, path=f"co{sig.path}") for sig in moved)
        inputs, outputs = (*source.inputs, *moved), tangents
    else:
        inputs = (*source.inputs, *tangents)
        outputs = (*source.outputs, *moved) if primal else moved
    tag = f"{','.join(map(str, ins))}:{','.join(map(str, outs))}{'+' if primal else ''}"
    word = "forward mode" if kind == "push" else "backward"
    made = replace(
        source,
        label=f"{source.label} ({word})",
        key=f"{source.key}/{kind}/{tag}",
        inputs=inputs,
        outputs=outputs,
        order=source.order + 1,
        seeds=seeds,
        undone=source.undone or again,
        primals=source.primal_count,
        writes=None,
        forms=(),
    )
    failures: list[str] = []
    if kind == "push":
        compat.load_forward_mode()
    once = source.once_differentiable if source.order else is_once_differentiable(source)
    made = replace(made, once_differentiable=once)
    if once and (source.order or kind == "push"):
        raise not_differentiable(source.label)

    def transformed(function: Core, way: _Way, *, lasting: bool) -> Core:
        count = len(source.inputs)
        if kind == "pull":
            return transforms.pullback(
                function, count, ins, outs, engine=way.engine, label=source.label
            )
        return transforms.pushforward(
            function,
            count,
            ins,
            outs,
            engine=way.engine,
            primal=primal,
            label=source.label,
            backwards=way.backwards or lasting,
        )

    for form, way in _tries(source, kind):
        base = form if source.order else with_plain_norms(form)
        core = transformed(form, way, lasting=False)
        function = transformed(base, way, lasting=True)
        candidate = replace(
            made,
            function=with_plain_determinants(function) if source.order == 1 else function,
            engine=way.engine,
            way=way.words(kind),
            plain_attention=way.plain_attention,
            opaque=way.opaque,
        )
        try:
            program = program_of(candidate, core)
        except NotCapturedError as error:
            if "use_reentrant" in str(error):
                raise DifferentiationError(
                    f"{source.label}: torch.utils.checkpoint with use_reentrant=True works with "
                    "Tensor.backward() only. Pass use_reentrant=False."
                ) from error
            how = " (attention by plain products)" if way.plain_attention else ""
            how += " (writing to copies)" if form in source.forms[1:] else ""
            failures.append(f"{candidate.way}{how}: {error}")
            continue
        return Derived(candidate, program, tuple(failures))
    tried = "; ".join(failures)
    raise DifferentiationError(
        f"{source.label}: no way to differentiate by {source.names(ins)} works: {tried}."
    )


def program_of(source: Source, core: Core | None = None) -> Program:
    """What runs a derived or batched source: its graph, or where there can be none, itself.

    Args:
        source: What to compute.
        core: The same in another way, which is better to run but not to differentiate.

    Raises:
        NotCapturedError: It cannot be traced.
    """
    undo = Undo.of(source) if source.undone else None
    core = core or source.function
    program = Program(
        core,
        source.inputs,
        source.outputs,
        source,
        source.context.with_grad(),
        seeds=source.seeds,
        undo=undo,
        eager=True,
    )
    if not source.capturable:
        return program
    graph = capture(
        source,
        core,
        source.inputs,
        source.outputs,
        plain_attention=source.plain_attention,
    )
    return replace(
        program,
        core=graph,
        context=source.context.without_grad(),
        undo=None,
        guard=ClosureGuard(source.closure),
        eager=False,
    )


@dataclass(frozen=True)
class _Way:
    """One way to differentiate.

    Attributes:
        engine: What differentiates.
        plain_attention: Without fused attention kernels.
        opaque: Without a graph.
        backwards: A pushforward by reverse mode, twice.
    """

    engine: Engine
    plain_attention: bool
    opaque: bool
    backwards: bool

    def words(self, kind: str) -> str:
        """For `explain`."""
        name = PULLBACK_WORDS[self.engine]
        if kind == "pull":
            return name
        return f"{name}, twice" if self.backwards else "torch.func.jvp"


def _tries(source: Source, kind: str) -> Iterator[tuple[Core, _Way]]:
    """The forms of the function, and for each the ways; the best first."""
    forms, ways = source.differentiable_forms, list(_ways(source, kind))
    for form in forms:
        yield from ((form, way) for way in ways if not way.opaque)
    # Without a graph autograd records the function as it stands.
    yield from ((forms[-1], way) for way in ways if way.opaque)


def _ways(source: Source, kind: str) -> Iterator[_Way]:
    """The best first."""
    if source.derivable_by_graph:
        # What was differentiated by autograd inside cannot be by torch.func outside.
        autograd = source.engine == "autograd" or source.terms.autograd_only
        engines: tuple[Engine, ...] = ("autograd",) if autograd else _ENGINES
        tries: list[tuple[Engine, bool]] = [(engine, True) for engine in engines]
        # Forward mode does not heed torch.no_grad, which reverse mode does.
        if kind == "push" and engines[0] == "func" and not source.facts.switches_grad:
            tries.insert(0, ("func", False))
        for engine, backwards in tries:
            if not source.plain_attention:
                yield _Way(engine, False, False, backwards)
            # Other attention kernels would draw other random numbers than the forward did.
            if source.plain_attention or (source.facts.attention and not source.facts.random):
                yield _Way(engine, True, False, backwards)
    # What cannot be tried abstractly takes the engine that knows most functions.
    yield _Way("autograd", source.plain_attention, True, True)
