"""The arrays of a contract, from a function at many sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .axes import Grouping, group_axes
from .examples import Path
from .formulas import Sample, formula_of
from .joined_dimensions import joined
from .lists import as_lists
from .names import name_dimensions
from .probe import Axis, Probe, ProbeError, Result
from .text import Remarks

_DIVISORS = (2, 3, 4, 5, 6, 7, 8, 16, 32, 64)


@dataclass(frozen=True)
class Drafted:
    """Parts of a contract.

    Attributes:
        fields: ``inputs``, ``static`` and ``outputs``, as plain data.
        remarks: On lines of the file.
        guessed: Names of dimensions that were guessed.
        notes: Lines for the head of the file.
        constraints: That sizes were seen to need.
        runs: Whether the function had to run.
    """

    fields: Mapping[str, Any]
    remarks: Remarks
    guessed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    constraints: tuple[str, ...] = field(default=())
    runs: bool = False


def draft_arrays(probe: Probe, given: Mapping[Axis, str], static: Mapping[str, Any]) -> Drafted:
    """Inputs and outputs with names for the sizes that can change.

    Args:
        probe: The function.
        given: Names that a person gave to axes.
        static: What the contract says of the other arguments.

    Raises:
        ProbeError: The function fails on the example.
    """
    results = probe.results({})
    # One by one, then all at once: some functions take another path at other sizes.
    grouping = joined(probe, group_axes(probe))
    taken = {path[0] for path in probe.dtypes}
    names, guessed = name_dimensions(grouping.dimensions, given, results, taken)
    scales = _Scales(probe, grouping, names)
    terms: dict[Axis, str] = dict(names)
    for one in grouping.multiples:
        terms[one.axis] = f"{one.factor}*{names[one.base]}"
    inputs: dict[str, Any] = {}
    remarks: dict[tuple[str, ...], str] = {}
    for path, dtype in probe.dtypes.items():
        shape = probe.shape_of(path, probe.sizes)
        # An axis without a name keeps the example's size.
        dims = [terms.get((path, axis), str(size)) for axis, size in enumerate(shape)]
        _put(inputs, path, f"{dtype}[{', '.join(dims)}]")
    for path, words in _remarks(probe, grouping, names, guessed):
        remarks["inputs", *path] = words
    outputs, more = _outputs(
        scales, results, sorted(set(names.values()), key=list(names.values()).index)
    )
    remarks.update(more)
    fields = {
        "inputs": as_lists(inputs),
        **({"static": static} if static else {}),
        "outputs": outputs,
    }
    constraints = tuple(scales.divisors())
    notes = (
        ("The function looks at values, so it was run on made-up arrays.",) if probe.runs else ()
    )
    return Drafted(fields, remarks, tuple(sorted(guessed)), notes, constraints, probe.runs)


class _Scales:
    """The function at sizes of the named dimensions."""

    def __init__(self, probe: Probe, grouping: Grouping, names: Mapping[Axis, str]) -> None:
        self._probe = probe
        self._grouping = grouping
        self._axes: dict[str, list[Axis]] = {}
        for axis, name in names.items():
            self._axes.setdefault(name, []).append(axis)
        self.example = {name: probe.sizes[axes[0]] for name, axes in self._axes.items()}
        self.base = self._distinct()

    def results(self, sizes: Mapping[str, int]) -> tuple[Result, ...]:
        """What comes back at these sizes."""
        changed = {axis: sizes[name] for name, axes in self._axes.items() for axis in axes}
        for one in self._grouping.multiples:
            changed[one.axis] = one.factor * changed[one.base]
        return self._probe.results(changed)

    def works(self, sizes: Mapping[str, int]) -> bool:
        """Whether the function accepts these sizes."""
        try:
            self.results(sizes)
        except ProbeError:
            return False
        return True

    def samples(self) -> list[tuple[dict[str, int], tuple[Result, ...]]]:
        """Results at sizes that differ from `base` in one name, and in all."""
        tried = [dict(self.base)]
        for name, size in self.base.items():
            # Multiples as well as small steps: some functions need an even size.
            tried += [
                {**self.base, name: other} for other in (2 * size, 3 * size, size + 1, size + 3)
            ]
        tried.append({name: 2 * size for name, size in self.base.items()})
        found = []
        for sizes in tried:
            try:
                found.append((sizes, self.results(sizes)))
            except ProbeError:
                continue
        return found

    def divisors(self) -> Iterator[str]:
        """Constraints such as ``dim % 4 == 0``, of names whose sizes must be multiples."""
        for name, size in self.example.items():
            # The next size works as well, so that nothing has to divide it.
            if self.works({**self.example, name: size + 1}):
                continue
            for divisor in _DIVISORS:
                if size % divisor == 0 and self.works({**self.example, name: size + divisor}):
                    yield f"{name} % {divisor} == 0"
                    break

    def _distinct(self) -> dict[str, int]:
        """Multiples of the example's sizes, all different; the example's where that fails."""
        seen = {self._probe.sizes[axis] for axis in self._grouping.fixed}
        found: dict[str, int] = {}
        for name, size in self.example.items():
            factor = next(factor for factor in range(1, 1000) if factor * size not in seen)
            found[name] = factor * size
            seen.add(factor * size)
        return found if self.works(found) else dict(self.example)


def _outputs(
    scales: _Scales, results: Sequence[Result], names: Sequence[str]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    samples = scales.samples()
    outputs: dict[str, Any] = {}
    remarks: dict[tuple[str, ...], str] = {}
    free = 0
    for number, result in enumerate(results):
        terms = []
        unknown = []
        for axis in range(len(result.sizes)):
            mine: list[Sample] = [
                (sizes, found[number].sizes[axis])
                for sizes, found in samples
                # Where other results come back, nothing can be said of this one.
                if len(found) == len(results) and len(found[number].sizes) > axis
            ]
            term = formula_of(mine, names)
            if term is None:
                free += 1
                term = f"free{free}"
                unknown.append(f"{term}={result.sizes[axis]} in the example: no formula was found")
            terms.append(term)
        path = _contract_path(result.path)
        _put(outputs, path, f"{result.dtype}[{', '.join(terms)}]")
        if unknown:
            remarks["outputs", *path] = "; ".join(unknown)
    return as_lists(outputs), remarks


def _contract_path(path: tuple[str | int, ...]) -> Path:
    """Where a result stands in the contract: one alone, several, or by their own names."""
    if not path:
        return ("out",)
    first = f"out{path[0]}" if isinstance(path[0], int) else path[0]
    return (first, *map(str, path[1:]))


def _put(tree: dict[str, Any], path: Path, value: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _remarks(
    probe: Probe, grouping: Grouping, names: Mapping[Axis, str], guessed: frozenset[str]
) -> Iterator[tuple[Path, str]]:
    """For each input: the names that were guessed, and where they came from."""
    # A name is told of where it first stands; later inputs say whom they go with.
    first: dict[str, Axis] = {}
    untried = {axis for one in grouping.dimensions if not one.tried for axis in one.axes}
    for path in probe.dtypes:
        new, old = [], []
        for axis, size in enumerate(probe.shape_of(path, probe.sizes)):
            name = names.get((path, axis))
            if name not in guessed:
                continue
            if name in first and first[name][0] != path:
                other, place = first[name]
                word = "equal in" if (path, axis) in untried else "as in"
                old.append(f"{name} {word} {'.'.join(other)} axis {place}")
            elif name not in first:
                first[name] = (path, axis)
                new.append(f"{name}={size}")
        parts = [f"guessed: {', '.join(new)}"] if new else []
        parts += [", ".join(dict.fromkeys(old))] if old else []
        fixed = [str(probe.sizes[axis]) for axis in grouping.fixed if axis[0] == path]
        parts += [f"{', '.join(fixed)} fixed"] if fixed else []
        if parts:
            yield path, "; ".join(parts)
