"""The calls that stand for all calls a contract allows: sizes, static values, optional inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...spec.followed_dtypes import path_followed
from ...spec.language.shapes import Shape
from ...spec.language.sizes import Sizes as Bound
from ...spec.language.sizes import resolve
from ...spec.language.static_arguments import StaticSpec, Value
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec
from .sizes import Sizes, SizeSearch

Path = tuple[str, ...]

# Beyond that, choices are tried one at a time beside the first of all others.
_MOST_COMBINATIONS = 16

# For arguments without a default.
_MADE_UP = {"int": 1, "float": 0.5, "list[int]": (0,), "list[float]": (0.5,), "list[bool]": (True,)}

# No size divides another, so none is taken for a multiple of another.
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        sizes: Of each dimension.
        rest: What ``...`` stands for.
        static: Values of the static arguments.
        without: Optional inputs that are left out.
        dtypes: Of each input that may have several.
    """

    sizes: tuple[tuple[str, int], ...] = ()
    rest: tuple[int, ...] = ()
    static: tuple[tuple[str, Value], ...] = ()
    without: frozenset[Path] = frozenset()
    dtypes: tuple[tuple[Path, str], ...] = ()

    def shape_of(self, shape: Shape) -> tuple[int, ...]:
        """The sizes of an array of this call."""
        found = resolve(shape, Bound(self.sizes, self.rest))
        assert found is not None  # every name of an input has a size
        return found

    def dtype_of(self, spec: CallableSpec, path: Path, leaf: TensorSpec) -> str:
        """The dtype of an input of this call."""
        path = path_followed(leaf, spec.input_leaves()) or path
        return dict(self.dtypes).get(path) or _usual(spec.dtypes_of(leaf))

    def with_sizes(self, sizes: Sizes) -> Case:
        """The same call with other sizes."""
        return replace(self, sizes=tuple(sizes.items()))

    def words(self, spec: CallableSpec) -> str:
        """What tells it from other calls, in one line."""
        parts = [f"{name}={size}" for name, size in self.sizes]
        if has_rest(spec):
            parts.insert(0, f"...={self.rest}")
        parts += [
            f"{name}={value!r}"
            for name, value in self.static
            if spec.static[name].required or not spec.static[name].has_default(value)
        ]
        parts += [f"{'.'.join(path)} {dtype}" for path, dtype in self.dtypes]
        parts += [f"without {'.'.join(path)}" for path in sorted(self.without)]
        return ", ".join(parts) or "no sizes"


# Past the tables of positions and the like that functions hold, in steps that constraints ask for.
_LARGE = (1031, 1032, 1040, 1056, 1088, 1152)
_LOOK_AHEAD = 8


def first_sizes(spec: CallableSpec, search: SizeSearch) -> Iterator[Sizes]:
    """Sizes to begin with: all different, so that no two dimensions are taken for each other.

    The later ones divide each other more often, for functions whose constraints are not written
    down.
    """
    seen: list[Sizes] = []
    for row in (
        _PRIMES,
        range(8, 400, 8),
        [2**power for power in range(1, 12)],
        range(64, 4096, 64),
    ):
        turned = [*row]
        # Each name begins one further on in the row, so that sizes differ.
        preferred = {name: turned[index % len(turned) :] for index, name in enumerate(search.names)}
        sizes = search.find(preferred)
        if sizes is not None and sizes not in seen:
            seen.append(sizes)
            yield sizes


def other_sizes(search: SizeSearch, base: Sizes) -> Iterator[tuple[str, Sizes]]:
    """For each dimension calls in which it is larger, large or 1, as far as constraints allow.

    What has to change with it does.
    """
    # Tried first, so that others change only where a constraint asks for it.
    stay = {name: (size,) for name, size in base.items()}
    for name, size in base.items():
        for choices in ((2 * size,), (size + 1,), _LARGE, (1,)):
            tried = (search.find(stay, {name: one}) for one in choices if one != size)
            sizes = next((one for one in tried if one is not None), None)
            if sizes is not None:
                yield name, sizes


def sizes_together(search: SizeSearch, base: Sizes) -> Iterator[Sizes]:
    """Calls in which all dimensions are other ones, for formulas that are right at some sizes.

    `n//8*8+8` is `(n+7)//8*8` unless 8 divides n; and a function that needs even sizes works
    with half of all.
    """
    seen = [dict(base)]
    for step in range(2, 10):
        preferred = {
            name: range(size + step, size + step + _LOOK_AHEAD) for name, size in base.items()
        }
        sizes = search.find(preferred)
        if sizes is not None and sizes not in seen:
            seen.append(sizes)
            yield sizes


def values_of(static: StaticSpec) -> tuple[Value, ...]:
    """The values to try of a static argument, the default first; none if nothing tells one.

    All of its choices, both booleans, null where the type has it; of numbers and strings the
    default alone.
    """
    found: list[Any] = [] if static.required else [static.default]
    names = static.type.names if static.type is not None else ()
    found += static.choices
    if not static.choices:
        if "bool" in names or any(isinstance(one, bool) for one in found):
            found += [False, True]
        if "null" in names:
            found.append(None)
        if not found:
            found += [_MADE_UP[name] for name in names if name in _MADE_UP][:1]
    # 1 and true are equal, but not the same choice.
    return tuple({(type(one), repr(one)): one for one in found}.values())


def static_choices(spec: CallableSpec) -> tuple[tuple[tuple[str, Value], ...], ...]:
    """Values of all static arguments, the defaults first; none if one has no value to try."""
    choices = {name: values_of(static) for name, static in spec.static.items()}
    return tuple(tuple(zip(choices, one, strict=True)) for one in _mixed(choices))


def dtype_choices(spec: CallableSpec) -> tuple[tuple[tuple[Path, str], ...], ...]:
    """Dtypes of the inputs that may have several, the usual ones first."""
    choices = {}
    for path, leaf in spec.input_leaves():
        names = spec.dtypes_of(leaf)
        if leaf.dtype.like is None and len(names) > 1:
            first = _usual(names)
            choices[path] = (first, *(name for name in names if name != first))
    return tuple(tuple(zip(choices, one, strict=True)) for one in _mixed(choices))


def _usual(names: tuple[str, ...]) -> str:
    return "float32" if "float32" in names else names[0]


def left_out(spec: CallableSpec) -> tuple[frozenset[Path], ...]:
    """Which optional inputs a call leaves out: none of them first."""
    optional = [path for path, leaf in spec.input_leaves() if leaf.optional]
    choices = dict.fromkeys(optional, (False, True))
    return tuple(
        frozenset(path for path, gone in zip(optional, one, strict=True) if gone)
        for one in _mixed(choices)
    )


def ranks_of_rest(spec: CallableSpec) -> tuple[tuple[int, ...], ...]:
    """What ``...`` may stand for: one dimension, none, two."""
    return ((4,), (), (3, 2)) if has_rest(spec) else ((),)


def has_rest(spec: CallableSpec) -> bool:
    """Whether an array of the contract has ``...``."""
    leaves = (*spec.input_leaves(), *spec.output_leaves())
    return any(leaf.shape.rest_axis is not None for _, leaf in leaves)


def has_wide_floats(spec: CallableSpec) -> bool:
    """Whether an input may have floats or complex numbers that JAX narrows while x64 is off."""
    wide = {"float64", "complex128"}
    return any(wide.intersection(spec.dtypes_of(leaf)) for _, leaf in spec.input_leaves())


def untried_static(spec: CallableSpec) -> tuple[str, ...]:
    """Static arguments of which only one of many values is tried, with that value."""
    return tuple(
        f"{name}={values_of(static)[0]!r}"
        for name, static in spec.static.items()
        if len(values_of(static)) == 1 and not static.choices
    )


def _mixed(choices: Mapping[Any, tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """All combinations; where they are many, each choice beside the first of all others."""
    values = tuple(choices.values())
    if math.prod(len(one) for one in values) <= _MOST_COMBINATIONS:
        yield from itertools.product(*values)
        return
    first = tuple(one[0] for one in values)
    yield first
    for index, one in enumerate(values):
        yield from ((*first[:index], value, *first[index + 1 :]) for value in one[1:])
    yield tuple(one[-1] for one in values)
