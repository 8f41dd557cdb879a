"""Whether a function is linear in some of its inputs: told by its operations, or by numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..._compat.torch.operators.linearity import LinearityWatch, Other, State
from ...errors import DifferentiationError
from ...first_line import first_line
from ...planner.array_signature import ArraySig
from ..functions.graph_capture import NotCapturedError, abstractly
from ..functions.tensor_function import TensorFunction
from ..observe.abstract_evaluation import fake_inputs
from ..op.program import Undo

# A function may be linear on one side of 0 alone, or near it. Halves go no further than the second.
_SCALES = (1.0, -1.0, 1e-2, 1e3)
_SCALES_OF_HALVES = (1.0, -1.0, 1e-2, 1e1)

# Asked for where they are needed: they may have to be copied from a device.
Known = Callable[[], Sequence[np.ndarray | None]]
Run = Callable[..., Sequence[torch.Tensor]]


def doubt_of(fn: TensorFunction, wrt: Sequence[int], outs: Sequence[int]) -> str:
    """Why numbers have to tell whether some results are linear; empty if they are.

    Raises:
        DifferentiationError: They are not.
    """
    if fn.inference.random and not fn.seeds:
        raise _refused(fn, wrt, "it draws random numbers, and takes no key (`rng=`)")
    if not fn.capturable or fn.closure.scripted or fn.inference.flags:
        return "torch cannot tell what it does without running it"
    try:
        return _told_by_operations(fn, wrt, outs)
    except NotCapturedError as error:
        return str(error)


def _told_by_operations(fn: TensorFunction, wrt: Sequence[int], outs: Sequence[int]) -> str:
    # As in a graph of it, and outside of any autograd of ours.
    function = fn.differentiable_cores[0]
    with abstractly(fn, fn.plain_attention) as mode:
        fakes = fake_inputs(mode, fn.inputs, fn.device)
        watch = LinearityWatch([fakes[index] for index in wrt])
        with torch.enable_grad(), watch:
            leaves = function(*fakes)
        found = [watch.of(leaves[index]) for index in outs]
        cut = watch.cut
    doubt = "autograd does not record all of it, or by a backward of the function's own"
    doubts = [doubt] if cut else []
    for index, state in zip(outs, found, strict=True):
        if isinstance(state, Other) and not state.certain:
            doubts.append(state.words)
        elif isinstance(state, Other):
            raise _refused(fn, wrt, state.words)
        elif state is State.CONSTANT:
            path = fn.outputs[index].path or "the result"
            raise _refused(fn, wrt, f"`{path}` does not depend on it")
    return "; ".join(doubts[:1])


def test_by_numbers(
    fn: TensorFunction,
    wrt: tuple[int, ...],
    outs: tuple[int, ...],
    doubt: str,
    known: Known,
    function: Run,
    pullback: Run,
) -> None:
    """Compare the function with its pullback on made-up numbers.

    Args:
        fn: The function.
        wrt: Inputs in which it has to be linear.
        outs: Results that have to be.
        doubt: Why nothing else tells.
        known: Gives the values of its operands, None for ``wrt`` and where they are not known.
        function: Runs it on its operands.
        pullback: From its inputs, cotangents of ``outs`` and seeds to cotangents of ``wrt``.

    Raises:
        DifferentiationError: It is not linear, or values that it needs are not known.
    """
    operands: list[torch.Tensor] = []
    for index, (sig, value) in enumerate(zip(fn.operands, known(), strict=True)):
        if index in wrt:
            operands.append(_zeros(sig, fn.device))
        elif value is None:
            raise _refused(
                fn,
                wrt,
                f"{doubt}, so that numbers must tell, and the value of `{sig.path}` is not known "
                "here, under jit or vmap",
            )
        else:
            operands.append(_as_tensor(value, sig, fn.device))
    generator = torch.Generator().manual_seed(0)
    count = len(fn.inputs)
    cotangents = [_drawn(fn.outputs[index], generator, fn.device) for index in outs]
    directions = [_drawn(fn.inputs[index], generator, fn.device) for index in wrt]

    def at(scale: float) -> list[torch.Tensor]:
        found = list(operands)
        for index, direction in zip(wrt, directions, strict=True):
            found[index] = direction * scale
        return found

    pairs = [*(fn.inputs[index] for index in wrt), *(fn.outputs[index] for index in outs)]
    # How much of its size rounding may change.
    share = max(float(torch.finfo(getattr(torch, sig.torch_dtype)).eps) for sig in pairs) ** 0.5
    scales = _SCALES if share < 1e-2 else _SCALES_OF_HALVES

    def run() -> tuple[list[Sequence[torch.Tensor]], Sequence[torch.Tensor]]:
        states = fn.generators.states(fn.device)
        with (
            fn.context.scope(),
            Undo.of(fn).scope(),
            fn.generators.drawing_from(states, fn.device),
        ):
            pulled = pullback(*operands[:count], *cotangents, *operands[count:])
            return [function(*at(scale)) for scale in (0.0, *scales)], pulled

    try:
        results, pulled = fn.call_locks.around_program(run, eager=True, states=True)()
    except Exception as error:
        # Whatever it raises on numbers that nobody has chosen for it.
        words = f"{doubt}; on made-up numbers it fails with {first_line(error).rstrip('.')}"
        raise _refused(fn, wrt, words) from error
    at_zero = [results[0][index] for index in outs]
    if any(bool((leaf != 0).any()) for leaf in at_zero):
        raise _refused(fn, wrt, "where they are 0, its result is not")
    right, right_size = _paired(pulled, directions)
    for scale, leaves in zip(scales, results[1:], strict=True):
        left, left_size = _paired(cotangents, [leaves[index] for index in outs])
        allowed = share * max(left_size, abs(scale) * right_size)
        # A NaN is no sign that it is linear.
        if not abs(left - scale * right) <= allowed:
            raise _refused(fn, wrt, f"{doubt}; on numbers it is not what its derivative says")


def _zeros(sig: ArraySig, device: str) -> torch.Tensor:
    return torch.zeros(sig.shape, dtype=getattr(torch, sig.dtype), device=device)


def _drawn(sig: ArraySig, generator: torch.Generator, device: str) -> torch.Tensor:
    dtype = getattr(torch, sig.dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(sig.shape, dtype=wide, generator=generator).to(device, dtype)


def _as_tensor(value: np.ndarray, sig: ArraySig, device: str) -> torch.Tensor:
    # By its bytes: numpy's own dtypes lack some of torch's.
    raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8).copy()
    return torch.from_numpy(raw).view(getattr(torch, sig.dtype)).reshape(sig.shape).to(device)


def _paired(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> tuple[float, float]:
    """The sum of products in JAX's convention, and the size of what is summed."""
    total = size = 0.0
    for one, other in zip(ones, others, strict=True):
        product = _wide(one) * _wide(other)
        total += float(product.sum().real)
        size += float(product.abs().sum())
    return total, size


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.complex128)


def _refused(fn: TensorFunction, wrt: Sequence[int], reason: str) -> DifferentiationError:
    return DifferentiationError(
        f"{fn.label}: cannot transpose by {fn.names(wrt)}: expected a function that is "
        f"linear in it; {reason}. Transpose its derivative at a point, which is: "
        "jax.linearize(f, x)[1]."
    )
