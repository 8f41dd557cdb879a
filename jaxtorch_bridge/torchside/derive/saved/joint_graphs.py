"""Capture a function's forward with saved tensors, and its backward, as two graphs.

AOTAutograd traces forward and backward together; its min-cut partitioner decides what to save.
The graphs hold the modules' own parameters, so values that an optimiser changes are seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...._compat import torch_graphs
from ...._compat import torch_internals as compat
from ...._compat.torch_attention import is_on_host
from ....planner.array_signature import ArraySig
from ...functions.graph_capture import NotCapturedError, abstractly, refuse_other_draws
from ...functions.source import Core, Source
from ...functions.unrecorded_backward import refuse_lacking
from ...observe.abstract_evaluation import fake_inputs
from ...op.results_in_place import Place
from .prune_backward import prune, unused_placeholders, without_detach
from .residual_layout import ResidualLayout, restride
from .shared_memory import Saved, shared_memory, view_of_input
from .simplify_graphs import simplify

Traced = Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class JointGraphs:
    """The two graphs and how values pass between them.

    Attributes:
        forward: ``(*inputs)`` to ``(*outputs, *saved)``.
        backward: ``(*saved, *cotangents)`` to gradients.
        kept: For every tensor that the forward saves, its layout if it travels as a residual.
        saved: Where each argument of the backward graph comes from.
        cotangent_strides: What the backward graph was traced with.
        diff_outputs: Outputs that have a cotangent.
        grad_inputs: Inputs that have a gradient, in the order of `gradients`.
        gradients: Positions of these gradients among the backward graph's results.
    """

    forward: Any
    backward: Any
    output_count: int
    kept: tuple[tuple[int, ResidualLayout], ...]
    saved: tuple[Saved, ...]
    cotangent_strides: tuple[tuple[int, ...], ...]
    diff_outputs: tuple[int, ...]
    grad_inputs: tuple[int, ...]
    gradients: tuple[int, ...]

    @property
    def weights_read_backward(self) -> tuple[torch.Tensor, ...]:
        """Closed-over tensors that the backward graph reads as they are when it runs."""
        return tuple(torch_graphs.constants_of(self.backward))

    @property
    def residuals(self) -> tuple[ArraySig, ...]:
        """The flat arrays behind the outputs."""
        return tuple(layout.sig for _, layout in self.kept)

    @property
    def run_forward(self) -> ForwardCore:
        """Computes outputs, followed by the flat residuals."""
        return ForwardCore(self)

    def pullback(self, ins: Sequence[int], outs: Sequence[int]) -> SavedPullback:
        """The backward graph for gradients of ``ins`` from cotangents of ``outs``."""
        positions = [self.gradients[self.grad_inputs.index(index)] for index in ins]
        there = [index in outs for index in self.diff_outputs]
        whole = all(there) and tuple(ins) == self.grad_inputs
        graph = self.backward if whole else prune(self.backward, positions, there)
        # Residuals that the cut graph does not read are no operands: JAX drops what nobody reads.
        unused = unused_placeholders(graph)[: len(self.saved)]
        places = [None if idle else place for place, idle in zip(self.saved, unused, strict=True)]
        strides = [
            stride if used else None
            for stride, used in zip(self.cotangent_strides, there, strict=True)
        ]
        return SavedPullback(self, graph, tuple(places), tuple(strides), tuple(positions))


@dataclass(frozen=True)
class ForwardCore:
    """The forward graph as a core: outputs, followed by the flat residuals."""

    graphs: JointGraphs

    @property
    def graph_module(self) -> Any:
        """The graph that runs."""
        return self.graphs.forward

    def arguments(self, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Inputs are the graph's own."""
        return tensors

    def finish(self, results: Sequence[Any]) -> list[torch.Tensor]:
        """Saved tensors travel flat."""
        residuals = [layout.encode(results[position]) for position, layout in self.graphs.kept]
        return [*results[: self.graphs.output_count], *residuals]

    def result_places(self) -> tuple[Place, ...]:
        """Outputs as they are, residuals in the order in which they lie in memory."""
        outputs = [Place(position) for position in range(self.graphs.output_count)]
        residuals = [
            Place(position, layout.not_in_place, flat=True) for position, layout in self.graphs.kept
        ]
        return (*outputs, *residuals)

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Run."""
        return self.finish(self.graph_module(*tensors))


@dataclass(frozen=True)
class SavedPullback:
    """A backward graph, and where each of its arguments comes from.

    Attributes:
        graphs: What it is part of.
        graph: Gradients from saved tensors and cotangents.
        places: For each saved tensor its place, or None if it is not read.
        strides: For each cotangent the strides it was traced with, or None if it is zero.
        positions: Of the gradients among the graph's results.
    """

    graphs: JointGraphs
    graph: Any
    places: tuple[Saved | None, ...]
    strides: tuple[tuple[int, ...] | None, ...]
    positions: tuple[int, ...]

    def _read(self, source: str) -> tuple[int, ...]:
        return tuple(sorted({p.index for p in self.places if p and p.source == source}))

    @property
    def inputs(self) -> tuple[int, ...]:
        """Inputs of the function that are read."""
        return self._read("input")

    @property
    def residuals(self) -> tuple[int, ...]:
        """Residuals that are read."""
        return self._read("residual")

    @property
    def graph_module(self) -> Any:
        """The graph that runs."""
        return self.graph

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Gradients from (inputs that are read, residuals that are read, cotangents)."""
        return self.finish(self.graph(*self.arguments(tensors)))

    def run_differentiably(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """The same in a form that is differentiable by the cotangents.

        By them alone: what the graph saved is constant here.
        """
        return self.finish(without_detach(self.graph)(*self.arguments(tensors)))

    def arguments(self, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
        """Saved tensors and cotangents, as the graph takes them."""
        inputs, residuals = self.inputs, self.residuals
        tail = tensors[len(inputs) + len(residuals) :]
        bases = dict(zip(inputs, tensors, strict=False))
        flats = dict(zip(residuals, tensors[len(inputs) :], strict=False))
        arguments: list[torch.Tensor | None] = []
        for place in self.places:
            if place is None:
                arguments.append(None)
            elif place.source == "input":
                arguments.append(place.view(bases[place.index]))
            else:
                layout = self.graphs.kept[place.index][1]
                arguments.append(place.view(layout.decode(flats[place.index])))
        # Cotangents come in JAX's convention, the conjugate of torch's; gradients go back so.
        cotangents = iter(tail)
        for stride in self.strides:
            if stride is None:
                arguments.append(None)
                continue
            cotangent = next(cotangents)
            if cotangent.is_complex():
                cotangent = cotangent.conj().resolve_conj()
            # The graph was traced with these strides, and views in it rely on them.
            arguments.append(restride(cotangent, stride))
        return arguments

    def finish(self, results: Sequence[Any]) -> list[torch.Tensor]:
        """The gradients that were asked for, in JAX's convention."""
        found = [results[position] for position in self.positions]
        return [value.conj().resolve_conj() if value.is_complex() else value for value in found]

    def result_places(self) -> tuple[Place, ...]:
        """Of the gradients; complex ones are conjugated on the way."""
        results = _results(self.graph)
        return tuple(
            Place(position, "it is conjugated" if _is_complex(results[position]) else "")
            for position in self.positions
        )


def capture_joint(source: Source, wrt: Sequence[int]) -> JointGraphs | None:
    """Trace forward and backward for gradients with respect to ``wrt``.

    Returns:
        The graphs, or None if no output depends differentiably on these inputs.

    Raises:
        NotCapturedError: Says why not.
        LackingDerivativeError: An operation has no derivative, so that this has none either.
    """
    ways = [source.plain_attention]
    # Other kernels would draw in another order.
    if source.inference.attention and not source.plain_attention and not source.may_draw:
        ways.append(True)
    failure: NotCapturedError | None = None
    for function, plain in itertools.product(source.differentiable_forms, ways):
        try:
            return _capture(source, function, wrt, plain)
        except NotCapturedError as error:
            # The words of the better way.
            failure = failure or error
    assert failure is not None
    raise failure


def _capture(
    source: Source, function: Core, wrt: Sequence[int], plain_attention: bool
) -> JointGraphs | None:
    outputs = source.outputs
    with abstractly(source, plain_attention) as mode:
        fakes = fake_inputs(mode, source.inputs, source.device)
        for index in wrt:
            fakes[index].requires_grad_()
        # Planning may happen under a caller's no_grad.
        with torch.enable_grad():
            traced, diff_outputs = _prepare(function, fakes, outputs, source.label)
            if not diff_outputs:
                return None
            joint = _export(traced, fakes)
            simplify(joint)
            refuse_other_draws(source, joint)
            forward, backward = torch_graphs.partition_joint(joint, fakes, len(outputs))
    count = len(source.inputs)
    return _connect(source, forward, backward, count, len(outputs), wrt, diff_outputs)


def _export(traced: Traced, fakes: Sequence[torch.Tensor]) -> Any:
    """The joint graph; if need be with a copy of every output."""
    try:
        return torch_graphs.export_joint(traced, fakes)
    except RuntimeError as error:
        # Torch says so in words alone.
        if "alias" not in str(error):
            raise

    def copied(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # A result may be a view of something in between, such as the real part of a sum.
        return tuple(result.clone() for result in traced(*tensors))

    return torch_graphs.export_joint(copied, fakes)


def _prepare(
    function: Core, fakes: Sequence[torch.Tensor], outputs: Sequence[ArraySig], label: str
) -> tuple[Traced, tuple[int, ...]]:
    """The function with outputs of their own, and which of them have a cotangent.

    Raises:
        LackingDerivativeError: One of these comes from an operation without a derivative.
    """
    # Once before tracing, to see what the outputs share and which of them move.
    leaves = function(*fakes)
    taken = {compat.storage_key(fake) for fake in fakes}
    shared = set()
    for index, leaf in enumerate(leaves):
        key = compat.storage_key(leaf)
        # Outputs that alias inputs (or each other) break the joint export.
        if key in taken or not compat.is_fake(leaf):
            shared.add(index)
        taken.add(key)
    differentiable = tuple(
        index
        for index, leaf in enumerate(leaves)
        if leaf.requires_grad and outputs[index].differentiable
    )
    refuse_lacking(label, [leaves[index] for index in differentiable])

    def traced(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = []
        for index, leaf in enumerate(function(*tensors)):
            own = leaf.clone() if index in shared else leaf
            # Torch traces a cotangent for every output that requires grad.
            results.append(own if index in differentiable else own.detach())
        return tuple(results)

    return traced, differentiable


def _connect(
    source: Source,
    forward: Any,
    backward: Any,
    input_count: int,
    output_count: int,
    wrt: Sequence[int],
    diff_outputs: tuple[int, ...],
) -> JointGraphs:
    """Match what the forward graph saves with what the backward graph reads."""
    placeholders = [node for node in forward.graph.nodes if node.op == "placeholder"]
    inputs = {node.name: index for index, node in enumerate(placeholders)}
    nodes = {node.name: node for node in forward.graph.nodes}
    saved: list[Saved | None] = []
    pending: list[fx.Node] = []
    strides = []
    for node in backward.graph.nodes:
        if node.op != "placeholder":
            continue
        # So named by AOTAutograd.
        if node.name.startswith("tangents"):
            strides.append(tuple(node.meta["val"].stride()))
            continue
        # JAX has the inputs: what is a view of one need not travel.
        view = view_of_input(nodes[node.name], inputs)
        saved.append(view)
        if view is None:
            pending.append(nodes[node.name])
    carried, places = shared_memory(pending)
    results = _keep(forward, output_count, carried)
    kept = [
        (
            results[node],
            ResidualLayout.of(
                node.name,
                node.meta["val"],
                x64=source.x64,
                on_host=is_on_host(node, source.device),
            ),
        )
        for node in carried
    ]
    found_again = iter(places)
    taken = [place or Saved("residual", *next(found_again)) for place in saved]
    if len(strides) != len(diff_outputs):
        raise NotCapturedError(
            f"torch traced {len(strides)} cotangents for {len(diff_outputs)} differentiable outputs"
        )
    gradients = _results(backward)
    by_input = gradients if len(gradients) == input_count else _spread(gradients, wrt, input_count)
    found = [index for index in wrt if by_input[index] is not None]
    positions = [i for i, gradient in enumerate(gradients) if gradient is not None]
    return JointGraphs(
        forward,
        backward,
        output_count,
        tuple(kept),
        tuple(taken),
        tuple(strides),
        diff_outputs,
        tuple(found),
        tuple(positions),
    )


def _spread(gradients: Sequence[Any], wrt: Sequence[int], input_count: int) -> list[Any]:
    spread: list[Any] = [None] * input_count
    for index, gradient in zip(wrt, gradients, strict=True):
        spread[index] = gradient
    return spread


def _is_complex(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    return value is not None and value.is_complex()


def _results(graph: Any) -> Sequence[Any]:
    return tuple(next(node for node in graph.graph.nodes if node.op == "output").args[0])


def _keep(forward: Any, output_count: int, carried: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """Have the forward graph return what travels behind its outputs; the position of each."""
    (output,) = (node for node in forward.graph.nodes if node.op == "output")
    outputs = tuple(output.args[0])[:output_count]
    output.args = ((*outputs, *carried),)
    # Saved views that are taken again from what is carried.
    torch_graphs.remove_dead_code(forward.graph)
    forward.recompile()
    return {node: output_count + index for index, node in enumerate(carried)}
