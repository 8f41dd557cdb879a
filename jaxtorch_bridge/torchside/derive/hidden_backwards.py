"""Backwards of a function's own that cut the way back, found on numbers before a graph is made.

Such a backward may compute under ``torch.no_grad``, by ``.data``, or by another pass of autograd
that records nothing. What it gives is then a constant for torch, whose derivative is zero without
a word; a graph of it has these zeros. Runs on values compare both sides of the derivative (see
`unrecorded_backward`), and graphs of functions that look at no values do the same for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch

from ...errors import DifferentiationError
from ...planner.array_signature import ArraySig
from ..functions import transforms
from ..op.program import Undo
from .engines.engine import Goal

# Two: some functions want numbers above 0, others are constant there.
_DRAWS: tuple[Callable[..., torch.Tensor], ...] = (torch.randn, torch.rand)


def known_to_autograd(goal: Goal) -> bool:
    """Whether nothing hides its derivative; False if made-up numbers do not tell.

    Raises:
        DifferentiationError: Something does.
    """
    fn = goal.fn
    asked = goal.kind == "push" or fn.order > 0
    if not (asked and fn.inference.own_backwards and fn.derivable_by_graph):
        return True
    return any(_told(goal, draw) for draw in _DRAWS)


def _told(goal: Goal, draw: Callable[..., torch.Tensor]) -> bool:
    fn, generator = goal.fn, torch.Generator().manual_seed(0)
    inputs = [_made(sig, draw, generator, fn.device) for sig in fn.inputs]
    moved = [fn.outputs[index] for index in goal.outs]
    tangents = [fn.inputs[index] for index in goal.ins] if goal.kind == "push" else moved
    given = [_made(sig, torch.randn, generator, fn.device) for sig in tangents]
    count, core = len(fn.inputs), fn.differentiable_cores[0]
    if goal.kind == "push":
        derivative = transforms.pushforward(
            *(core, count, goal.ins, goal.outs),
            transform="autograd",
            primal=False,
            label=fn.label,
        )
    else:
        derivative = transforms.pullback(
            core, count, goal.ins, goal.outs, transform="autograd", label=fn.label
        )

    def run() -> Sequence[torch.Tensor]:
        states = fn.generators.states(fn.device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(fn.context.with_grad().scope())
            stack.enter_context(Undo.of(fn).scope())
            stack.enter_context(fn.generators.drawing_from(states, fn.device))
            return derivative(*inputs, *given)

    try:
        found = fn.call_locks.around_program(run, eager=True, states=True)()
    except DifferentiationError:
        raise
    except Exception:
        # Whatever it raises on numbers that nobody has chosen for it.
        return False
    # Zeros and NaN agree with everything.
    return all(bool(torch.isfinite(one).all() and one.any()) for one in found)


def _made(
    sig: ArraySig, draw: Callable[..., torch.Tensor], generator: torch.Generator, device: str
) -> torch.Tensor:
    dtype = getattr(torch, sig.torch_dtype)
    if not (dtype.is_floating_point or dtype.is_complex):
        # An index that is in range nearly everywhere.
        return torch.zeros(sig.shape, dtype=dtype, device=device)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return draw(sig.shape, dtype=wide, generator=generator).to(device, dtype)
