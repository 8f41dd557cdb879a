"""What torch itself gives: results, gradients, tangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import torch

from comparing import assert_close
from jaxtorch_bridge import j2t

from .outcome import NothingToCompareError, words_of
from .samples import Case, is_inexact, leaves

_NONE_MOVES = "no argument that derivatives are taken by"
_NO_DERIVATIVES = "no result that has derivatives"


def results_of(call: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors in a call's result."""
    found = leaves(call(*copies_of(tensors)), torch.Tensor)
    return copies_of(detached(found))


def moved_of(case: Case) -> list[torch.Tensor]:
    """The arguments that derivatives are taken by."""
    return [case.tensors[place] for place in case.moved]


def weights_like(case: Case, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Cotangents or tangents: the same on both sides."""
    generator = torch.Generator().manual_seed(case.seed)
    return [
        torch.randn(
            tensor.shape,
            dtype=torch.complex128 if tensor.is_complex() else torch.float64,
            generator=generator,
        ).to(tensor.dtype)
        for tensor in like
    ]


def differentiable(case: Case) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Tensors that move, and the results that have derivatives by them.

    Raises:
        NothingToCompareError: There are none of either.
    """
    if not case.moved:
        raise NothingToCompareError(_NONE_MOVES)
    moved = [tensor.clone().requires_grad_() for tensor in moved_of(case)]
    # Copies, since nothing may be written to a leaf.
    results = list(_of_moved(case)(*copies_of(moved)))
    if not results:
        raise NothingToCompareError(_NO_DERIVATIVES)
    return moved, results


def _of_moved(case: Case) -> Callable[..., Any]:
    def function(*moved: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = copies_of(case.tensors)
        for place, tensor in zip(case.moved, moved, strict=True):
            given[place] = tensor
        found = leaves(case.reduced(*given), torch.Tensor)
        return tuple(tensor for tensor in found if is_inexact(tensor))

    return function


def pulled_back(
    results: Sequence[torch.Tensor], moved: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Torch's gradients, in JAX's convention for complex numbers."""
    used = [place for place, result in enumerate(results) if result.requires_grad]
    if not used:
        return [torch.zeros_like(tensor) for tensor in moved]
    grads = torch.autograd.grad(
        [results[place] for place in used],
        moved,
        [weights[place].conj() for place in used],
        materialize_grads=True,
        allow_unused=True,
    )
    return [grad.conj().resolve_conj() for grad in grads]


def forward_mode(case: Case) -> list[torch.Tensor]:
    """Results and tangents by torch's forward mode."""
    moved = copies_of(moved_of(case))
    results, pushed = torch.func.jvp(
        _of_moved(case), tuple(moved), tuple(weights_like(case, moved))
    )
    # Some rules compute in another dtype than the result's, which JAX does not allow.
    tangents = [one.to(other.dtype) for one, other in zip(pushed, results, strict=True)]
    return [*detached(results), *detached(tangents)]


class Gradients:
    """What tangents have to agree with: weighed results move as the gradients of their sum say."""

    def __init__(self, case: Case) -> None:
        """Of some weights; fails where torch has no gradients."""
        moved, results = differentiable(case)
        self.results = detached(results)
        self._weights = weights_like(case, results)
        # As for real numbers: the convention for complex ones is another matter.
        grads = pulled_back(results, moved, [weight.conj() for weight in self._weights])
        self._grads = [grad.conj() for grad in grads]
        self._tangents = weights_like(case, moved)
        self._all = [*detached(moved), *self.results]

    def contradict(self, pushed: Sequence[Any]) -> str:
        """Where these are not the tangents, in words; empty if they may be."""
        tensors = [j2t(one) if isinstance(one, jax.Array) else one for one in pushed]
        expected, size = _product(self._grads, self._tangents)
        moves, _ = _product(self._weights, tensors)
        # Saturated functions have small slopes with the rounding errors of their values.
        _, of_values = _product(self._weights, self.results)
        coarsest = max(
            (torch.finfo(tensor.dtype) for tensor in self._all), key=lambda info: info.eps
        )
        try:
            assert_close(
                moves,
                expected,
                scale=max(size, of_values),
                computed_in=coarsest.dtype,
                label="weighed tangents",
            )
        except AssertionError as error:
            return words_of(error)
        return ""


def _product(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> tuple[float, float]:
    """The real inner product, and the size of what it adds up."""
    wide = [
        (one.to(torch.complex128), other.to(torch.complex128))
        for one, other in zip(ones, others, strict=True)
    ]
    terms = torch.cat([(one.conj() * other).real.flatten() for one, other in wide])
    return float(terms.sum()), float(terms.abs().sum())


def draws(function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a call of torch's draws random numbers."""
    before = torch.get_rng_state()
    try:
        function(*copies_of(tensors))
    except Exception:
        return False
    return not torch.equal(before, torch.get_rng_state())


def copies_of(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same with memory of their own; gradients go through."""
    return [tensor.clone() for tensor in tensors]


def detached(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same without gradients."""
    return [tensor.detach() for tensor in tensors]
