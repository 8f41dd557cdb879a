"""A sample of an operator's arguments as a function of flat tensors.

Torch's samples hold tensors anywhere in their arguments, in lists of lists as well. All of them are
what JAX will hold; everything else is static.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Of the samples that torch generates, which are hundreds for some operators.
_LOOKED_AT = 24
# Elements of a batch, from samples by other seeds: equal ones would hide a batch that is mixed up.
BATCH = 2


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        call: The operator as a function of the tensors alone.
        in_place: Its form that writes to the first tensor, if there is one.
        reduced: ``call`` with what torch's own tests of derivatives do to arguments, such as
            making them symmetric where only half of a matrix is read, and to the result, such as
            leaving out the phase of eigenvectors, which nothing may be differentiated through.
        tensors: Its arguments, without gradients, in row-major order as JAX's arrays are.
        batch: More such arguments, of the same shapes; for `torch.stack`.
        moved: Which of them derivatives are taken by.
        seed: For what is drawn at random, tangents among them.
    """

    call: Callable[..., Any]
    in_place: Callable[..., Any] | None
    reduced: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]
    batch: tuple[tuple[torch.Tensor, ...], ...]
    moved: tuple[int, ...]
    seed: int

    @property
    def needs_x64(self) -> bool:
        """Whether JAX would make other tensors of these unless its 64-bit dtypes are on."""
        return any(
            tensor.dtype in (torch.float64, torch.complex128, torch.int64, torch.uint64)
            for tensor in self.tensors
        )


def cases(entry: Any, dtype: str, count: int) -> list[Case]:
    """As many calls of an entry as asked for, if torch has so many; the plainest first.

    Args:
        entry: An ``OpInfo``.
        dtype: Of what the operator computes with.
        count: How many; from the second on they are those with the most arguments.
    """
    seed = zlib.crc32(f"{entry.full_name} {dtype}".encode())
    drawn = [_drawn(entry, dtype, seed + element) for element in range(BATCH)]
    found = []
    for place in _chosen(drawn[0], count):
        others = [samples[place] for samples in drawn[1:] if place < len(samples)]
        found.append(_case(entry, drawn[0][place], others, seed))
    return found


def _drawn(entry: Any, dtype: str, seed: int) -> list[Any]:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    wanted = getattr(torch, dtype)
    # With these torch marks what may be differentiated by.
    marked = entry.supports_autograd and (wanted.is_floating_point or wanted.is_complex)
    samples = entry.sample_inputs("cpu", wanted, requires_grad=marked, set_seed=False)
    return list(itertools.islice(samples, _LOOKED_AT))


def _chosen(samples: Sequence[Any], count: int) -> list[int]:
    """Places of the first sample that has several values, and of the richest others."""

    def is_poor(place: int) -> bool:
        sizes = [tensor.numel() for tensor in _tensors_of(samples[place])]
        return not sizes or min(sizes) == 0 or max(sizes) == 1

    def richness(place: int) -> tuple[int, int, int]:
        sample, tensors = samples[place], _tensors_of(samples[place])
        ranks = sum(tensor.dim() for tensor in tensors)
        return len(tensors), ranks, len(sample.args) + len(sample.kwargs)

    places = sorted(range(len(samples)), key=is_poor)
    others = sorted(places[1:], key=lambda place: (not is_poor(place), richness(place)))
    return [*places[:1], *reversed(others)][:count]


def _case(entry: Any, sample: Any, others: Sequence[Any], seed: int) -> Case:
    # Without the entry itself, which refers to much that can change.
    function, writing = entry.op, entry.get_inplace()
    process, prepare = sample.output_process_fn_grad, entry.gradcheck_wrapper
    tree = (sample.input, sample.args, sample.kwargs)

    def call(*tensors: torch.Tensor) -> Any:
        given, args, kwargs = _put_back(tree, iter(tensors))
        return function(given, *args, **kwargs)

    def in_place(*tensors: torch.Tensor) -> Any:
        given, args, kwargs = _put_back(tree, iter(tensors))
        return writing(given, *args, **kwargs)

    def reduced(*tensors: torch.Tensor) -> Any:
        given, args, kwargs = _put_back(tree, iter(tensors))
        return process(prepare(function, given, *args, **kwargs))

    if not isinstance(sample.input, torch.Tensor):
        writing = None
    found = _tensors_of(sample)
    moved = [place for place, tensor in enumerate(found) if tensor.requires_grad]
    if not moved and not entry.supports_autograd:
        # Torch marks none where there is no derivative. JAX asks all the same.
        moved = [place for place, tensor in enumerate(found) if is_inexact(tensor)]
    tree = _put_back(tree, itertools.repeat(None))
    batch = [
        tuple(map(_plain, _tensors_of(other))) for other in others if _alike(sample, other)
    ] or [tuple(map(_plain, found))]
    return Case(
        call=call,
        in_place=None if writing is None else in_place,
        reduced=reduced,
        tensors=tuple(map(_plain, found)),
        batch=tuple(batch),
        moved=tuple(moved),
        seed=seed,
    )


def _alike(sample: Any, other: Any) -> bool:
    """Whether two samples differ in the values of tensors alone."""
    ours, theirs = _tensors_of(sample), _tensors_of(other)
    shapes = [[(tensor.shape, tensor.dtype) for tensor in side] for side in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return False
    texts = [
        repr(_put_back((one.input, one.args, one.kwargs), itertools.repeat(None)))
        for one in (sample, other)
    ]
    return texts[0] == texts[1]


def is_inexact(tensor: torch.Tensor) -> bool:
    """Whether JAX has derivatives of such an array."""
    return tensor.is_floating_point() or tensor.is_complex()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided:
        return tensor.detach()
    return tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)


def _tensors_of(sample: Any) -> list[torch.Tensor]:
    return leaves((sample.input, sample.args, sample.kwargs), torch.Tensor)


def leaves(tree: Any, kind: type) -> list[Any]:
    """What is of a class in lists, tuples and dicts, in order."""
    if isinstance(tree, kind):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [leaf for part in tree for leaf in leaves(part, kind)]


_SLOT = object()


def _put_back(tree: Any, tensors: Any) -> Any:
    """The tree with these in the places of its tensors."""
    if isinstance(tree, torch.Tensor) or tree is _SLOT:
        new = next(tensors)
        return _SLOT if new is None else new
    if isinstance(tree, dict):
        return {key: _put_back(part, tensors) for key, part in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_put_back(part, tensors) for part in tree))
    if isinstance(tree, list | tuple) and type(tree) is not torch.Size:
        return type(tree)(_put_back(part, tensors) for part in tree)
    return tree
