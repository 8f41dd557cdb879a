"""Derivatives of torch functions over flat tensors, as functions of the same kind.

Each is made of its function's and can be differentiated again. For complex numbers torch's
gradient is the conjugate of JAX's, so pullbacks conjugate at both ends; pushforwards agree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ..._compat.torch.capture.tracing import evaluates_abstractly
from ..modules.recorded_calls import going_back, recording
from ..randomness.generator_states import NO_GENERATORS
from . import unrecorded_backward
from .forward_mode_guard import ForwardModeGuard, refuse_without_tangent
from .tensor_function import Core, Transform


def pushforward(
    function: Core,
    count: int,
    ins: Sequence[int],
    outs: Sequence[int],
    *,
    transform: Transform,
    primal: bool,
    label: str,
    backwards: bool = False,
) -> Core:
    """``(inputs, tangents of ins)`` to ``(results, tangents of outs)``.

    Args:
        function: Of ``count`` flat tensors.
        count: How many inputs it has.
        ins: Inputs with a tangent.
        outs: Results with a tangent.
        transform: How to differentiate.
        primal: Give the results as well, from the same run.
        label: The callable's name, for messages.
        backwards: By reverse mode twice, as it must be to be differentiated again: torch's
            forward-mode formulas of some operations (``linalg.solve``, ``det``) take intermediate
            results for constants. ``autograd`` knows no other way.
    """
    if transform == "autograd":
        run = _push_by_autograd(function, ins, outs, label)
    elif backwards:
        run = _push_by_func_twice(function, ins, outs)
    else:
        run = _push_by_func(function, ins, outs)

    def pushed(*tensors: torch.Tensor) -> list[torch.Tensor]:
        leaves, tangents = run(tensors[:count], tensors[count:])
        return [*leaves, *tangents] if primal else tangents

    return pushed


def pullback(
    function: Core,
    count: int,
    ins: Sequence[int],
    outs: Sequence[int],
    *,
    transform: Transform,
    label: str,
) -> Core:
    """``(inputs, cotangents of outs)`` to cotangents of ``ins``, in JAX's convention."""

    def pulled_by_func(*tensors: torch.Tensor) -> list[torch.Tensor]:
        inputs = list(tensors[:count])

        def moving(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            leaves = function(*_replaced(inputs, ins, values))
            return tuple(leaves[index] for index in outs)

        with recording():
            _, vjp, *_ = torch.func.vjp(moving, *(inputs[index] for index in ins))
            return as_cotangents(vjp(tuple(conjugated(tensors[count:]))))

    def pulled_by_autograd(*tensors: torch.Tensor) -> list[torch.Tensor]:
        # Somebody differentiates this derivative.
        again = any(tensor.requires_grad for tensor in tensors)
        with torch.enable_grad():
            inputs = _leaves(tensors[:count], ins)
        asked = [inputs[index] for index in ins]
        with torch.enable_grad(), recording(asked):
            leaves = function(*inputs)
            cotangents = conjugated(tensors[count:])
            if again:
                # `_refuse_hidden` asks autograd about them.
                cotangents = _leaves(cotangents, range(len(cotangents)))
            gradients = _gradients(label, leaves, outs, asked, cotangents, again)
            if again:
                _refuse_hidden(label, cotangents, gradients)
            return as_cotangents(gradients)

    return pulled_by_func if transform == "func" else pulled_by_autograd


# (inputs, tangents) to (results, tangents of some of them).
_Push = Callable[
    [Sequence[torch.Tensor], Sequence[torch.Tensor]], tuple[list[torch.Tensor], list[torch.Tensor]]
]


def _push_by_func(function: Core, ins: Sequence[int], outs: Sequence[int]) -> _Push:
    def run(
        inputs: Sequence[torch.Tensor], tangents: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        moving, primals = _moving(function, inputs, ins, outs)

        def watched(*values: torch.Tensor) -> tuple[Any, Any]:
            moved, leaves = moving(*values)
            refuse_without_tangent(moved)
            return moved, leaves

        with ForwardModeGuard():
            found: Any = torch.func.jvp(watched, primals, tuple(tangents), has_aux=True)
        _, moved, leaves = found
        return list(leaves), list(moved)

    return run


def _push_by_func_twice(function: Core, ins: Sequence[int], outs: Sequence[int]) -> _Push:
    """By ``torch.func.vjp`` of the pullback, which is linear in its cotangents."""

    def run(
        inputs: Sequence[torch.Tensor], tangents: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        moving, primals = _moving(function, inputs, ins, outs)
        with recording():
            found: Any = torch.func.vjp(moving, *primals, has_aux=True)
            results, pull, leaves = found
            # Where does not matter: the pullback is linear.
            zeros = tuple(torch.zeros_like(result) for result in results)
            _, push, *_ = torch.func.vjp(lambda *cotangents: pull(cotangents), *zeros)
            return list(leaves), list(push(tuple(tangents)))

    return run


def _moving(
    function: Core, inputs: Sequence[torch.Tensor], ins: Sequence[int], outs: Sequence[int]
) -> tuple[Callable[..., tuple[Any, Any]], tuple[torch.Tensor, ...]]:
    """A function of ``ins`` alone, which gives ``outs`` and, besides, all results; its point."""

    def moving(*values: torch.Tensor) -> tuple[Any, Any]:
        # All results, with and without a tangent, come out of the one run as `aux`.
        leaves = tuple(function(*_replaced(inputs, ins, values)))
        return tuple(leaves[index] for index in outs), leaves

    return moving, tuple(inputs[index] for index in ins)


def _push_by_autograd(function: Core, ins: Sequence[int], outs: Sequence[int], label: str) -> _Push:
    """The pullback is linear in its cotangent; the pullback of that is the pushforward."""

    def run(
        arguments: Sequence[torch.Tensor], tangents: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        again = any(tensor.requires_grad for tensor in (*arguments, *tangents))
        with torch.enable_grad():
            inputs = _leaves(arguments, ins)
        asked = [inputs[index] for index in ins]
        with torch.enable_grad(), recording(asked):
            leaves = list(function(*inputs))
            moving = [leaves[index] for index in outs]
            # Ones, not zeros: a backward that hides its way shows by what it makes of them.
            dummies = [torch.ones_like(leaf).requires_grad_() for leaf in moving]
            gradients = _gradients(label, leaves, outs, asked, dummies, True)
            unrecorded_backward.refuse_marked(label, gradients)
            moved = _pulled(gradients, dummies, tangents, again)
        unrecorded_backward.refuse_missing(label, dummies, moved, gradients, tangents)
        return leaves, moved

    return run


def _gradients(
    label: str,
    leaves: Sequence[torch.Tensor],
    outs: Sequence[int],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    again: bool,
) -> list[torch.Tensor]:
    """Gradients of what autograd recorded of some results, in torch's convention."""
    outputs = [leaves[index] for index in outs]
    unrecorded_backward.refuse_lacking(label, outputs)
    return _pulled(outputs, inputs, cotangents, again)


def _pulled(
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    again: bool,
    *,
    keep: bool | None = None,
) -> list[torch.Tensor]:
    """``torch.autograd.grad`` with zeros for what nothing depends on."""
    # `grad` refuses outputs that it did not record.
    recorded = [i for i, output in enumerate(outputs) if output.requires_grad]
    found: Sequence[torch.Tensor | None] = [None] * len(inputs)
    if recorded:
        with going_back():
            found = torch.autograd.grad(
                [outputs[i] for i in recorded],
                inputs,
                [cotangents[i] for i in recorded],
                create_graph=again,
                retain_graph=keep,
                allow_unused=True,
            )
    return [
        # JAX wants a gradient for every input that it asks about.
        torch.zeros_like(tensor) if gradient is None else gradient
        for gradient, tensor in zip(found, inputs, strict=True)
    ]


def _refuse_hidden(
    label: str, cotangents: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> None:
    """Before a pullback is differentiated again."""
    unrecorded_backward.refuse_marked(label, gradients)
    # The sums would need values.
    if evaluates_abstractly():
        return
    tangents = [torch.ones_like(gradient) for gradient in gradients]
    # Kept: the caller goes through the same graph once more.
    moved = _pulled(gradients, cotangents, tangents, False, keep=True)
    unrecorded_backward.refuse_missing(label, cotangents, moved, gradients, tangents)


def _leaves(tensors: Sequence[torch.Tensor], ins: Sequence[int]) -> list[torch.Tensor]:
    """The inputs, those in ``ins`` as tensors that autograd can be asked about."""
    found = list(tensors)
    for index in ins:
        tensor = found[index]
        # A view keeps the way to whoever differentiates this call again.
        found[index] = (
            tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
        )
    return found


def _replaced(
    tensors: Sequence[torch.Tensor], indices: Sequence[int], values: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    full = list(tensors)
    for index, value in zip(indices, values, strict=True):
        full[index] = value
    return full


def conjugated(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """From JAX's convention for complex gradients to torch's, or back."""
    # Resolved: XLA's buffers have no flag for a pending conjugation.
    return [tensor.conj().resolve_conj() if tensor.is_complex() else tensor for tensor in tensors]


def as_cotangents(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What torch found, as JAX has it: dense (``embedding(sparse=True)``), in JAX's convention."""
    return conjugated([one if one.layout is torch.strided else one.to_dense() for one in gradients])


def batched(
    function: Core,
    dims: Sequence[int | None],
    out_dims: Sequence[int | None],
    *,
    draws: Literal["different", "same"] = "different",
) -> Core:
    """One call for a whole batch, by ``torch.vmap``.

    Args:
        function: Of one element.
        dims: Batch axes of its inputs.
        out_dims: Batch axes of its results.
        draws: Whether every element draws random numbers of its own.
    """
    mapped = torch.vmap(
        lambda *tensors: tuple(function(*tensors)),
        in_dims=tuple(dims),
        randomness=draws,
    )

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        # Not out_dims=None: inside of another vmap, torch takes a result that only that one
        # batches for one that this one does, and refuses.
        results = mapped(*tensors)
        return [
            result.select(0, 0) if dim is None else result.movedim(0, dim)
            for result, dim in zip(results, out_dims, strict=True)
        ]

    return run


def looped(
    function: Core, dims: Sequence[int | None], size: int, *, draws_on: str | None = None
) -> Core:
    """The same, one element after the other.

    Args:
        function: Of one element.
        dims: Batch axes of its inputs.
        size: Of the batch.
        draws_on: ``cpu`` or ``cuda``: every element draws the same numbers there. None: each
            draws on.
    """

    def loop(*tensors: torch.Tensor) -> list[torch.Tensor]:
        columns = []
        # The call has seeded these from its key; every element begins there again.
        states = [] if draws_on is None else NO_GENERATORS.states(draws_on)
        for index in range(size):
            elements = [
                tensor if dim is None else tensor.select(dim, index)
                for tensor, dim in zip(tensors, dims, strict=True)
            ]
            with contextlib.ExitStack() as stack:
                if draws_on is not None:
                    stack.enter_context(NO_GENERATORS.drawing_from(states, draws_on))
                columns.append(list(function(*elements)))
        return [torch.stack(column) for column in zip(*columns, strict=True)]

    return loop
