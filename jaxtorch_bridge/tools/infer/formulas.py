"""A size of a result as a formula over the sizes of the inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

# (sizes of the dimensions, size of the result)
Sample = tuple[Mapping[str, int], int]

_DIVISORS = range(2, 9)
# Small ones first: of two formulas that fit, the plainer one is found.
_SHIFTS = sorted(range(-8, 9), key=abs)
_FACTORS = (1, -1, 2, -2)
_MOST_IN_DIVISION = 3
_MOST_FACTORS = 4


def formula_of(samples: Sequence[Sample], names: Sequence[str]) -> str | None:
    """A term that gives the size in all samples, such as ``seq+1``; None if none was found.

    Args:
        samples: At sizes that differ from each other in every name.
        names: Of the dimensions, in order.
    """
    for candidate in _candidates(samples, names):
        if candidate is not None:
            return candidate
    return None


def _candidates(samples: Sequence[Sample], names: Sequence[str]) -> Iterable[str | None]:
    sizes = [size for _, size in samples]
    # From the plainest on: the first that fits is taken.
    if len(set(sizes)) == 1:
        yield str(sizes[0])
    yield from (name for name in names if all(at[name] == size for at, size in samples))
    yield _affine(samples, names)
    yield from _products(samples, names)
    yield from _divisions(samples, names)


def _affine(samples: Sequence[Sample], names: Sequence[str]) -> str | None:
    """``2*n+m-1``: from the steps between samples that differ in one name."""
    factors: dict[str, int] = {}
    for name in names:
        step = _step(samples, name)
        if step is None:
            return None
        if step:
            factors[name] = step
    # The first sample tells the constant, and all the others are held against it.
    at, size = samples[0]
    constant = size - sum(factor * at[name] for name, factor in factors.items())
    for at, size in samples:
        if size != constant + sum(factor * at[name] for name, factor in factors.items()):
            return None
    return _affine_text(factors, constant)


def _step(samples: Sequence[Sample], name: str) -> int | None:
    """By how much the size grows with one name alone, for each 1; None if not evenly."""
    (base, size), *others = samples
    for at, other in others:
        changed = [one for one in at if at[one] != base[one]]
        if changed == [name]:
            step, rest = divmod(other - size, at[name] - base[name])
            return None if rest else step
    return None


def _affine_text(factors: Mapping[str, int], constant: int) -> str | None:
    # A term of a contract cannot begin with a minus.
    terms = sorted(factors.items(), key=lambda item: item[1] < 0)
    if not terms or (terms[0][1] < 0 and constant <= 0):
        return None
    text = str(constant) if terms[0][1] < 0 else ""
    for name, factor in terms:
        part = name if abs(factor) == 1 else f"{abs(factor)}*{name}"
        text += ("-" if factor < 0 else "+" if text else "") + part
    if constant and terms[0][1] > 0:
        text += f"{constant:+d}"
    return text


def _products(samples: Sequence[Sample], names: Sequence[str]) -> Iterable[str]:
    used = [name for name in names if any(at[name] != samples[0][0][name] for at, _ in samples)]
    for count in range(2, min(len(used), _MOST_FACTORS) + 1):
        for some in itertools.combinations(used, count):
            at, size = samples[0]
            factor, rest = divmod(size, math.prod(at[name] for name in some))
            if rest or not factor:
                continue
            if all(size == factor * math.prod(at[name] for name in some) for at, size in samples):
                yield "*".join(([str(factor)] if factor != 1 else []) + list(some))


def _divisions(samples: Sequence[Sample], names: Sequence[str]) -> Iterable[str]:
    """``(n-k+3)//2``: of convolutions and pooling."""
    used = [name for name in names if _matters(samples, name)]
    if not 1 <= len(used) <= _MOST_IN_DIVISION:
        return
    for divisor in _DIVISORS:
        for factors in itertools.product(_FACTORS, repeat=len(used)):
            inner = [
                sum(f * at[n] for f, n in zip(factors, used, strict=True)) for at, _ in samples
            ]
            for shift in _SHIFTS:
                pairs = zip(inner, samples, strict=True)
                if all((one + shift) // divisor == size for one, (_, size) in pairs):
                    text = _affine_text(dict(zip(used, factors, strict=True)), shift)
                    if text is not None:
                        yield f"{text if text.isidentifier() else f'({text})'}//{divisor}"


def _matters(samples: Sequence[Sample], name: str) -> bool:
    (base, size), *others = samples
    return any(
        other != size and [one for one in at if at[one] != base[one]] == [name]
        for at, other in others
    )
