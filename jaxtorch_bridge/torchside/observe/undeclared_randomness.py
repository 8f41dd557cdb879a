"""What to say of random numbers that no key decides."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ...call_site import caller_level
from ...errors import BridgeWarning, RandomnessError
from ..randomness.generator_states import words_on

if TYPE_CHECKING:
    from .watched_run import Observed


def refuse_other_generators(label: str, observed: Observed) -> None:
    """Object to generators that a key does not reach.

    Raises:
        RandomnessError: As said.
    """
    found = observed.generators
    # Of a function that nobody could watch, these are all that it can reach, drawn from or not.
    if not observed.untraced and (found.own or found.foreign):
        words = words_on(found.foreign) if found.foreign else "a `torch.Generator` of its own"
        raise RandomnessError(
            f"{label}: expected random numbers from torch's default generators, which the key "
            f"`rng` seeds; the function draws from {words}, whose numbers differ from call to "
            "call. Draw them by torch, and leave `generator=` out."
        )


def warn_undeclared(label: str, notices: set[str], *, of_module: bool = False) -> None:
    """Say once a callable that JAX takes it for a pure function, and what to write instead."""
    # The set is the callable's, and all its plans share it.
    if "random" in notices:
        return
    notices.add("random")
    advice = (
        "Pass a key in every call: apply(..., rng=jax.random.key(0)), or switch off what draws: "
        "train=False."
        if of_module
        else 'Say `random: key` in the contract, or random="key" in jax_callable, and pass a key '
        "in every call: rng=jax.random.key(0)."
    )
    warnings.warn(
        f"{label}: the torch function draws random numbers, and nothing declares them: JAX may "
        f"merge two equal calls, or drop one. {advice}",
        BridgeWarning,
        stacklevel=caller_level(),
    )


class Noticed:
    """Runs a function that nobody has seen, and looks in its first run what it draws."""

    def __init__(self, run: Callable[..., Any], label: str, notices: set[str]) -> None:
        self._run = run
        self._label = label
        self._notices = notices
        self._seen = False

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run; warn if torch's generator has moved."""
        if self._seen:
            return self._run(*tensors)
        before = torch.get_rng_state()
        result = self._run(*tensors)
        # Not after a failure, which may have come before anything was drawn.
        self._seen = True
        if not torch.equal(before, torch.get_rng_state()):
            warn_undeclared(self._label, self._notices)
        return result
