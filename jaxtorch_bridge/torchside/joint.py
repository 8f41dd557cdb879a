"""Capture a function's forward with saved tensors, and its backward, as two graphs.

AOTAutograd traces forward and backward together; its min-cut partitioner decides what to save.
The graphs hold the modules' own parameters, so values that an optimiser changes are seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .._compat import torch_internals as compat
from ..planner.signature import ArraySig
from .closure import ClosureState
from .infer import FlatFunction, fake_inputs
from .residuals import ResidualLayout, restride

Traced = Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Saved:
    """Where the backward graph finds one of its saved tensors.

    Attributes:
        source: ``input``: a view of input ``index``, taken again without a copy.
            ``residual``: flat residual ``index``.
        index: Which one.
        shape: For a view of an input.
        stride: For a view of an input.
        offset: For a view of an input: first element, counted from the input's first.
    """

    source: Literal["input", "residual"]
    index: int
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0


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
    def weights_read_backward(self) -> list[torch.Tensor]:
        """Closed-over tensors that the backward graph reads as they are when it runs."""
        names = {node.target for node in self.backward.graph.nodes if node.op == "get_attr"}
        found = [getattr(self.backward, name) for name in sorted(names)]
        return [value for value in found if isinstance(value, torch.Tensor)]

    def run_forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Outputs, followed by the flat residuals."""
        results = self.forward(*inputs)
        residuals = [layout.encode(results[position]) for position, layout in self.kept]
        return [*results[: self.output_count], *residuals]

    def run_backward(
        self,
        inputs: dict[int, torch.Tensor],
        residuals: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Gradients of `grad_inputs`."""
        arguments = []
        for place in self.saved:
            if place.source == "input":
                base = inputs[place.index]
                arguments.append(base.as_strided(place.shape, place.stride, place.offset))
            else:
                arguments.append(self.kept[place.index][1].decode(residuals[place.index]))
        arguments += [
            restride(cotangent, stride)
            for cotangent, stride in zip(cotangents, self.cotangent_strides, strict=True)
        ]
        results = self.backward(*arguments)
        return [results[position] for position in self.gradients]


def weight_versions(
    weights: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """How often the weights have been written to, as int32[1] on the inputs' device."""
    count = sum(weight._version for weight in weights if not weight.is_inference())
    return torch.tensor([count], dtype=torch.int32, device=inputs[0].device)


def refuse_changed_weights(weights: Sequence[torch.Tensor], then: torch.Tensor) -> None:
    """Raise if a weight was written to between a forward and its backward, as torch does."""
    if int(then[0]) != int(weight_versions(weights, [then])[0]):
        raise RuntimeError(
            "a parameter that the backward pass needs was changed in place after the forward "
            "pass. Take the gradient before the parameters are updated."
        )


class NotCapturedError(RuntimeError):
    """The graphs could not be captured; the message says why."""


def capture_joint(
    function: FlatFunction,
    inputs: Sequence[ArraySig],
    outputs: Sequence[ArraySig],
    wrt: Sequence[int],
    device: str,
    *,
    plain_attention: bool,
    x64: bool,
    closure: ClosureState,
) -> JointGraphs | None:
    """Trace forward and backward for gradients with respect to ``wrt``.

    Returns:
        The graphs, or None if no output depends differentiably on these inputs.

    Raises:
        NotCapturedError: Torch could not trace the function.
    """
    surroundings = compat.plain_attention if plain_attention else contextlib.nullcontext
    mode = compat.fake_tensor_mode()
    fakes = fake_inputs(mode, inputs, device)
    for index in wrt:
        fakes[index].requires_grad_()
    snapshot = closure.snapshot()
    try:
        with torch.enable_grad(), surroundings(), compat.abstract_surroundings(), mode:
            traced, diff_outputs = _prepare(function, fakes, outputs)
            if not diff_outputs:
                return None
            joint = _export(traced, fakes)
            forward, backward = compat.partition_joint(joint, fakes, len(outputs))
    except Exception as error:
        raise NotCapturedError(f"{type(error).__name__}: {_first_line(error)}") from error
    finally:
        snapshot.restore()
    return _connect(forward, backward, len(inputs), len(outputs), wrt, diff_outputs, x64)


def _export(traced: Traced, fakes: Sequence[torch.Tensor]) -> Any:
    """The joint graph; if need be with a copy of every output."""
    try:
        return compat.export_joint(traced, fakes)
    except RuntimeError as error:
        if "alias" not in str(error):
            raise

    def copied(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # A result may be a view of something in between, such as the real part of a sum.
        return tuple(result.clone() for result in traced(*tensors))

    return compat.export_joint(copied, fakes)


def _prepare(
    function: FlatFunction, fakes: Sequence[torch.Tensor], outputs: Sequence[ArraySig]
) -> tuple[Traced, tuple[int, ...]]:
    """The function with outputs of their own, and which of them have a cotangent."""
    leaves, _ = function(*fakes)
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

    def traced(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = []
        for index, leaf in enumerate(function(*tensors)[0]):
            own = leaf.clone() if index in shared else leaf
            results.append(own if index in differentiable else own.detach())
        return tuple(results)

    return traced, differentiable


def _connect(
    forward: Any,
    backward: Any,
    input_count: int,
    output_count: int,
    wrt: Sequence[int],
    diff_outputs: tuple[int, ...],
    x64: bool,
) -> JointGraphs:
    """Match what the forward graph saves with what the backward graph reads."""
    placeholders = [node for node in forward.graph.nodes if node.op == "placeholder"]
    inputs = {node.name: index for index, node in enumerate(placeholders)}
    results = {node.name: position for position, node in enumerate(_results(forward))}
    nodes = {node.name: node for node in forward.graph.nodes}
    kept: list[tuple[int, ResidualLayout]] = []
    saved: list[Saved] = []
    strides = []
    for node in backward.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name.startswith("tangents"):
            strides.append(tuple(node.meta["val"].stride()))
            continue
        view = _view_of_input(nodes[node.name], inputs)
        if view is None:
            value = nodes[node.name].meta["val"]
            saved.append(Saved("residual", len(kept)))
            kept.append((results[node.name], ResidualLayout.of(node.name, value, x64=x64)))
        else:
            saved.append(view)
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
        tuple(saved),
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


def _results(graph: Any) -> Sequence[Any]:
    return tuple(next(node for node in graph.graph.nodes if node.op == "output").args[0])


def _view_of_input(node: Any, inputs: dict[str, int]) -> Saved | None:
    """How to take a saved tensor from an input again, if it is nothing but a view of one."""
    value = node.meta["val"]
    while node.name not in inputs:
        if node.op != "call_function" or not compat.is_strided_view_op(node.target):
            return None
        node = node.args[0]
    if value.dtype != node.meta["val"].dtype:
        return None
    return Saved(
        "input",
        inputs[node.name],
        tuple(value.shape),
        tuple(value.stride()),
        int(value.storage_offset()),
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""
