"""The ladder of reverse-mode derivatives of a torch function, taken from the top.

1. ``saved``: forward and backward graphs captured together; the forward saves what the
   backward needs, and nothing is computed twice.
2. ``recompute``: the backward runs the function again under ``torch.autograd.grad``.
3. An error that names what failed at each rung.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..errors import DifferentiationError
from ..planner.inference import Inference
from ..planner.signature import ArraySig
from .closure import ClosureGuard, ClosureState
from .context import TorchContext
from .infer import FlatFunction
from .joint import (
    JointGraphs,
    NotCapturedError,
    capture_joint,
    refuse_changed_weights,
    weight_versions,
)
from .op import TorchOp
from .randomness import drawing_from, random_state_sigs, random_states


@dataclass(frozen=True)
class Source:
    """A planned function, as the derivatives need it.

    Attributes:
        function: Flat tensors in the dtypes that torch is to see.
        updated: Closed-over tensors that the function writes to.
        recompute: Take no residuals.
        depth: Highest order of derivative allowed.
    """

    label: str
    key: str
    function: FlatFunction
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    inference: Inference
    updated: tuple[torch.Tensor, ...]
    closure: ClosureState
    context: TorchContext
    device: str
    x64: bool
    recompute: bool = False
    depth: int | None = None
    where: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Linearized:
    """A function together with its derivative at the point where it is evaluated.

    Attributes:
        wrt: Inputs that carry a tangent.
        rung: Which rung of the ladder was taken.
        forward: The op that computes outputs and residuals; None if it is the function's own.
        residuals: Flat residuals behind the outputs of ``forward``.
        diff_outputs: Outputs that carry a tangent.
        grad_inputs: Those of ``wrt`` that any of these outputs depends on.
        pullback: Op from (inputs in ``pullback_inputs``, residuals, cotangents of
            ``diff_outputs``) to cotangents of ``grad_inputs``. None if nothing depends.
        pullback_inputs: Inputs that ``pullback`` reads.
        failures: Words on the rungs above that did not work.
    """

    wrt: tuple[int, ...]
    rung: Literal["saved", "recompute", "zero"]
    source: Source
    forward: TorchOp | None
    residuals: tuple[ArraySig, ...]
    diff_outputs: tuple[int, ...]
    grad_inputs: tuple[int, ...]
    pullback: TorchOp | None
    pullback_inputs: tuple[int, ...]
    failures: tuple[str, ...] = ()
    guard: ClosureGuard | None = None

    def __repr__(self) -> str:
        return f"Linearized({self.source.key}, wrt={self.wrt}, {self.rung})"

    @property
    def fresh(self) -> bool:
        """Whether the function's surroundings are still those that were traced."""
        return self.guard is None or self.guard.holds

    @property
    def residual_bytes(self) -> int:
        """Bytes kept between forward and backward, besides inputs and outputs."""
        return sum(sig.size_bytes for sig in self.residuals)

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        shown = [self.source.inputs[index].path for index in self.wrt[:4]]
        hidden = len(self.wrt) - len(shown)
        names = ", ".join(shown) + (f" and {hidden} more" if hidden else "")
        rung = {
            "saved": f"saved residuals, {self.residual_bytes} bytes in "
            f"{len(self.residuals)} arrays",
            "recompute": "recompute with torch.autograd.grad",
            "zero": "zero: no output depends on them",
        }[self.rung]
        return (f"by {names}: {rung}", *(f"  not {words}" for words in self.failures))


def linearize(source: Source, wrt: tuple[int, ...]) -> Linearized:
    """The derivative by the inputs ``wrt``, from the highest rung that works.

    Raises:
        DifferentiationError: The function hides a derivative from torch, or cannot be
            differentiated at all.
    """
    _refuse_beyond_depth(source)
    _refuse_hidden_derivative(source, wrt)
    failures: list[str] = []
    if source.recompute:
        failures.append("saved residuals: the contract says `residuals: recompute`")
    elif source.inference.traced and not source.inference.updates_state:
        try:
            return _from_saved_residuals(source, wrt)
        except NotCapturedError as error:
            failures.append(f"saved residuals: {error}")
    return _by_recomputing(source, wrt, tuple(failures))


def _from_saved_residuals(source: Source, wrt: tuple[int, ...]) -> Linearized:
    guard = ClosureGuard(source.closure)
    graphs = capture_joint(
        source.function,
        source.inputs,
        source.outputs,
        wrt,
        source.device,
        plain_attention=source.inference.how == "fake-plain-attention",
        x64=source.x64,
        closure=source.closure,
    )
    if graphs is None:
        return Linearized(wrt, "zero", source, None, (), (), (), None, (), guard=guard)
    weights = graphs.weights_read_backward
    versions = (ArraySig("versions of weights", (1,), "int32", "int32", False),) if weights else ()
    residuals = (*(layout.sig for _, layout in graphs.kept), *versions)
    read = tuple(sorted({place.index for place in graphs.saved if place.source == "input"}))
    context = source.context.without_grad()

    def run_forward(*inputs: torch.Tensor) -> list[torch.Tensor]:
        guard.check()
        results = graphs.run_forward(*_seen(source.inputs, inputs))
        return [*results, weight_versions(weights, inputs)] if weights else results

    tag = f"wrt{','.join(map(str, wrt))}"
    forward = TorchOp(
        f"{source.label} (forward with residuals)",
        f"{source.key}/forward/{tag}",
        source.inputs,
        (*source.outputs, *residuals),
        run_forward,
        context,
    )
    pullback = TorchOp(
        f"{source.label} (backward)",
        f"{source.key}/backward/{tag}",
        _pullback_inputs(source, read, residuals, graphs.diff_outputs),
        _gradient_sigs(source, graphs.grad_inputs),
        _saved_pullback(source, graphs, read, len(residuals), guard),
        context,
    )
    return Linearized(
        wrt,
        "saved",
        source,
        forward,
        residuals,
        graphs.diff_outputs,
        graphs.grad_inputs,
        pullback,
        read,
        guard=guard,
    )


def _saved_pullback(
    source: Source,
    graphs: JointGraphs,
    read: tuple[int, ...],
    residual_count: int,
    guard: ClosureGuard,
) -> Callable[..., list[torch.Tensor]]:
    read_sigs = [source.inputs[index] for index in read]

    def run(*arguments: torch.Tensor) -> list[torch.Tensor]:
        # Here too: XLA drops a forward whose results nobody needs.
        guard.check()
        inputs = dict(zip(read, _seen(read_sigs, arguments[: len(read)]), strict=True))
        residuals = arguments[len(read) : len(read) + residual_count]
        weights = graphs.weights_read_backward
        if weights:
            refuse_changed_weights(weights, residuals[-1])
            residuals = residuals[:-1]
        cotangents = _to_torch(source, graphs.diff_outputs, arguments[len(read) + residual_count :])
        return _conjugate(graphs.run_backward(inputs, residuals, cotangents))

    return run


def _by_recomputing(source: Source, wrt: tuple[int, ...], failures: tuple[str, ...]) -> Linearized:
    """The backward pass runs the function again, on inputs that require grad."""
    diff_outputs = tuple(i for i, sig in enumerate(source.outputs) if sig.differentiable)
    every = tuple(range(len(source.inputs)))
    # Where random numbers may be drawn, the generators' states travel from the forward to the
    # backward, so that both draw the same.
    draws = source.inference.random or not source.inference.traced
    states = random_state_sigs(source.device) if draws else ()
    updated = source.updated if source.inference.traced else tuple(source.closure.buffers())

    def run_forward(*arguments: torch.Tensor) -> list[torch.Tensor]:
        before = random_states(source.device)
        return [*source.function(*_seen(source.inputs, arguments))[0], *before]

    def run(*arguments: torch.Tensor) -> list[torch.Tensor]:
        count = len(source.inputs)
        inputs = [
            tensor.detach().requires_grad_(index in wrt)
            for index, tensor in enumerate(_seen(source.inputs, arguments[:count]))
        ]
        cotangents = _to_torch(source, diff_outputs, arguments[count + len(states) :])
        surroundings = source.closure.snapshot()
        try:
            with _restored(updated), drawing_from(arguments[count : count + len(states)]):
                leaves, _ = source.function(*inputs)
                outputs = [leaves[index] for index in diff_outputs]
                asked = [inputs[index] for index in wrt]
                return _conjugate(_gradients(source.label, outputs, asked, cotangents))
        finally:
            surroundings.restore()

    context = TorchContext(True, source.context.autocast, source.context.default_dtype)
    tag = f"wrt{','.join(map(str, wrt))}"
    forward = None
    if states:
        forward = TorchOp(
            f"{source.label} (forward)",
            f"{source.key}/random/{tag}",
            source.inputs,
            (*source.outputs, *states),
            run_forward,
            source.context,
            hold_storages=True,
        )
    pullback = TorchOp(
        f"{source.label} (backward)",
        f"{source.key}/recompute/{tag}",
        _pullback_inputs(source, every, states, diff_outputs),
        _gradient_sigs(source, wrt),
        run,
        context,
        hold_storages=True,
    )
    return Linearized(
        wrt, "recompute", source, forward, states, diff_outputs, wrt, pullback, every, failures
    )


def _gradients(
    label: str,
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """Gradients of what autograd recorded."""
    recorded = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not recorded:
        raise DifferentiationError(
            f"{label}: torch recorded no way from the inputs to any result (no result requires "
            "grad), so the gradient would be zero without a word. If that is meant, use "
            "jax.lax.stop_gradient; otherwise look for detach(), no_grad or backward() inside."
        )
    found = torch.autograd.grad(
        [outputs[i] for i in recorded],
        inputs,
        [cotangents[i] for i in recorded],
        allow_unused=True,
    )
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for gradient, tensor in zip(found, inputs, strict=True)
    ]


def _refuse_beyond_depth(source: Source) -> None:
    if source.depth == 0:
        raise DifferentiationError(
            f"{source.label}: expected no derivative, since the contract says `vjp_depth: 0`; got "
            f"a first-order one. Raise vjp_depth, or use jax.lax.stop_gradient. [{source.where}]"
        )


def _refuse_hidden_derivative(source: Source, wrt: tuple[int, ...]) -> None:
    if not source.inference.grads_inside:
        return
    names = ", ".join(f"`{source.inputs[index].path}`" for index in wrt)
    raise DifferentiationError(
        f"{source.label}: cannot differentiate by {names}: the function calls "
        "torch.autograd.grad without create_graph=True, so torch takes what comes out as a "
        "constant and the gradient would be silently wrong. Pass create_graph=True inside, or "
        f"stop the gradient with jax.lax.stop_gradient.{source.where and ' [' + source.where + ']'}"
    )


def _pullback_inputs(
    source: Source,
    read: Sequence[int],
    residuals: Sequence[ArraySig],
    diff_outputs: Sequence[int],
) -> tuple[ArraySig, ...]:
    cotangents = tuple(
        ArraySig(f"cotangent of {sig.path or 'output'}", sig.shape, sig.dtype, sig.dtype)
        for sig in (source.outputs[index] for index in diff_outputs)
    )
    return (*(source.inputs[index] for index in read), *residuals, *cotangents)


def _gradient_sigs(source: Source, indices: Sequence[int]) -> tuple[ArraySig, ...]:
    return tuple(
        ArraySig(f"gradient by {sig.path}", sig.shape, sig.dtype, sig.torch_dtype)
        for sig in (source.inputs[index] for index in indices)
    )


def _seen(sigs: Sequence[ArraySig], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The inputs in the dtypes that torch is to see."""
    return [
        tensor if sig.dtype == sig.torch_dtype else tensor.to(getattr(torch, sig.torch_dtype))
        for sig, tensor in zip(sigs, tensors, strict=False)
    ]


def _to_torch(
    source: Source, diff_outputs: Sequence[int], cotangents: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """JAX's cotangents in torch's convention and dtypes.

    For complex numbers torch's gradient is the conjugate of JAX's, so both ends conjugate.
    """
    found = []
    for index, cotangent in zip(diff_outputs, cotangents, strict=True):
        wanted = getattr(torch, source.outputs[index].torch_dtype)
        tensor = cotangent if cotangent.dtype == wanted else cotangent.to(wanted)
        found.append(tensor.conj().resolve_conj() if tensor.is_complex() else tensor)
    return found


def _conjugate(gradients: Any) -> list[torch.Tensor]:
    return [gradient.conj() if gradient.is_complex() else gradient for gradient in gradients]


@contextlib.contextmanager
def _restored(updated: Sequence[torch.Tensor]) -> Iterator[None]:
    """Undo what a second run of the function does to the tensors that it closes over."""
    before = [tensor.detach().clone() for tensor in updated]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(updated, before, strict=True):
                tensor.copy_(value)
