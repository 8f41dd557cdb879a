"""The states of torch's generators, handed from a forward run to the run that repeats it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from ..planner.signature import ArraySig


def random_states(device: str) -> list[torch.Tensor]:
    """The CPU generator's state, and with CUDA the current device's, as uint8 on that device."""
    states = [torch.get_rng_state()]
    if device == "cuda":
        states = [states[0].cuda(), torch.cuda.get_rng_state().cuda()]
    return states


def random_state_sigs(device: str) -> tuple[ArraySig, ...]:
    """What `random_states` gives, as flat arrays."""
    return tuple(
        ArraySig(f"random state {i}", (state.numel(),), "uint8", "uint8", differentiable=False)
        for i, state in enumerate(random_states(device))
    )


@contextlib.contextmanager
def drawing_from(states: Sequence[torch.Tensor]) -> Iterator[None]:
    """Draw what was drawn from these states, and leave the generators as they were."""
    if not states:
        yield
        return
    before = torch.get_rng_state()
    cuda_before = torch.cuda.get_rng_state() if len(states) > 1 else None
    # A generator keeps what it is given: XLA's memory must not reach it.
    torch.set_rng_state(states[0].cpu().clone())
    if cuda_before is not None:
        torch.cuda.set_rng_state(states[1].cpu().clone())
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if cuda_before is not None:
            torch.cuda.set_rng_state(cuda_before)
