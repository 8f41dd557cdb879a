"""Names by which one field of a contract speaks of what another has: those of nothing there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from .array_tree import Leaves, Node, leaves_of, paths_of
from .language.constraints import Constraint
from .language.frozen_mapping import FrozenDict
from .language.problems import Fault
from .language.shapes import names_in
from .language.wording import did_you_mean, listed, show


def faults_of_expressions(leaves: Leaves) -> Iterator[Fault]:
    """Expressions over names that no input's shape can tell."""
    bound = frozenset(name for _, leaf in leaves for name in leaf.shape.plain_names)
    for path, leaf in leaves:
        for dimension in leaf.shape.dimensions:
            unbound = sorted(names_in(dimension) - bound)
            if unbound:
                expected = "only names that stand alone in the shape of some input"
                yield Fault(expected, f"{listed(unbound)} in `{dimension}`", path)


def faults_of_dimensions(names: Iterable[str], *trees: FrozenDict[str, Node]) -> Iterator[Fault]:
    """Dimension names that no array in these trees has."""
    known = _dimension_names(*trees)
    for name in names:
        if name not in known:
            yield Fault(_one_of("dimensions", name, known), show(name), (name,), at_key=True)


def faults_of_constraints(
    constraints: Iterable[Constraint], inputs: FrozenDict[str, Node]
) -> Iterator[Fault]:
    """Comparisons of dimensions that no input has."""
    # Of the inputs alone: a call is held against them before anything comes back.
    known = _dimension_names(inputs)
    for index, one in enumerate(constraints):
        for name in sorted(one.names - known):
            yield Fault(_one_of("dimensions of the inputs", name, known), show(name), (str(index),))


def faults_of_arguments(names: Iterable[str], inputs: Mapping[str, Node]) -> Iterator[Fault]:
    """Names of arrays or groups that the inputs do not have, or have twice."""
    # A list, since names may hold dots: two paths can read the same.
    known = [".".join(path) for path, _ in paths_of(inputs)]
    for index, name in enumerate(names):
        if name not in known:
            yield Fault(_one_of("inputs", name, known), show(name), (str(index),))
        elif known.count(name) != 1:
            yield Fault("a name that only one input has", show(name), (str(index),))


def _dimension_names(*trees: FrozenDict[str, Node]) -> frozenset[str]:
    return frozenset(
        name for nodes in trees for _, leaf in leaves_of(nodes) for name in leaf.shape.plain_names
    )


def _one_of(kind: str, name: str, known: Collection[str]) -> str:
    return f"one of the {kind} {listed(sorted(known))}{did_you_mean(name, known)}"
