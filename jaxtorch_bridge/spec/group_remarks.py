"""Remarks on groups and lists of arrays, which have no fields of their own to hold one.

A group is a mapping of whatever names its arrays have, `doc` among them. So its remark stands
apart, under `groups`, by the path that messages use: ``inputs.params: The weights.``
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from .array_tree import Node, paths_of
from .language.frozen_mapping import FrozenDict
from .language.problems import Fault, raise_faults
from .language.wording import did_you_mean, listed, show
from .tensor import TensorSpec


def read_groups(value: object) -> FrozenDict[str, str]:
    """Paths of groups with remarks on them; whether there are such groups is not looked at.

    Raises:
        ValidationError: With everything that is wrong below ``value``.
    """
    faults = []
    if not isinstance(value, Mapping):
        raise_faults([Fault("a mapping from paths to remarks", show(value))])
        return FrozenDict()
    for key, remark in value.items():
        if not isinstance(key, str):
            expected = "the path of a group, such as `inputs.params`"
            faults.append(Fault(expected, show(key), (str(key),), at_key=True))
        elif not isinstance(remark, str):
            faults.append(Fault("a remark (a string)", show(remark), (key,)))
    raise_faults(faults)
    return FrozenDict(value)


def faults_of_groups(
    groups: Mapping[str, str], inputs: Mapping[str, Node], outputs: Mapping[str, Node]
) -> Iterator[Fault]:
    """Remarks whose path is not that of one group or list."""
    # Counted, since names may hold dots: two paths can read the same.
    known: Counter[str] = Counter()
    arrays: set[str] = set()
    for kind, tree in (("inputs", inputs), ("outputs", outputs)):
        for path, node in paths_of(tree):
            dotted = ".".join((kind, *path))
            if isinstance(node, TensorSpec):
                arrays.add(dotted)
            else:
                known[dotted] += 1
    names = sorted(known)
    for key in groups:
        if known[key] > 1:
            yield Fault("a path of one group", f"{show(key)} of several", (key,), at_key=True)
        elif key in arrays and key not in known:
            expected = "the path of a group or list; an array has a `doc` of its own"
            yield Fault(expected, f"{show(key)} of an array", (key,), at_key=True)
        elif key not in known:
            expected = f"one of the groups and lists {listed(names)}{did_you_mean(key, names)}"
            yield Fault(expected, show(key), (key,), at_key=True)


def remarks_below(groups: Mapping[str, str], kind: str) -> dict[str, str]:
    """Path below ``inputs`` or ``outputs`` -> remark on the group there."""
    prefix = f"{kind}."
    return {
        path.removeprefix(prefix): remark
        for path, remark in groups.items()
        if path.startswith(prefix)
    }
