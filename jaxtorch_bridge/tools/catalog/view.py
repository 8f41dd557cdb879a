"""What the page shows, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...spec.array_tree import Leaves, leaves_of
from ...spec.compare.history import line_of
from ...spec.language.problems import Path
from ...spec.language.versions import parse_version
from ...spec.model import CallableSpec
from .collect import Versions
from .compare import SideBySide, side_by_side
from .parts import (
    Part,
    constraints_of,
    dimensions_of,
    inputs_of,
    outputs_of,
    static_of,
    with_groups,
)
from .promises import promises
from .signature import signature

if TYPE_CHECKING:
    from .plans import PlanView


@dataclass(frozen=True)
class VersionView:
    """One version of a contract.

    Attributes:
        label: Name and version.
        version: The version.
        place: File and line.
        function: Where the torch function is, or None.
        doc: A remark, or None.
        signature: As a person would write it.
        lists: Title and entries of each list that is not empty.
        constraints: What sizes must meet.
        promises: What plans will do, as far as the contract says.
        plan: What JAX will do with the function, if that was looked at.
    """

    label: str
    version: str
    place: str
    function: str | None
    doc: str | None
    signature: str
    lists: tuple[tuple[str, tuple[Part, ...]], ...]
    constraints: tuple[Part, ...]
    promises: tuple[tuple[str, str], ...]
    plan: PlanView | None


@dataclass(frozen=True)
class ContractView:
    """All versions of one contract.

    Attributes:
        name: Its name.
        newest: The newest version.
        older: The others, the newest first.
        reference: What to write to get the newest, such as ``attention@2``.
        comparison: All of them side by side; None if there is only one.
        words: What a search looks at, in lower case.
    """

    name: str
    newest: VersionView
    older: tuple[VersionView, ...]
    reference: str
    comparison: SideBySide | None
    words: str


def views_of(
    contracts: Mapping[str, Versions], plans: Mapping[str, PlanView] | None = None
) -> tuple[ContractView, ...]:
    """The view of each contract, in the order given; ``plans`` go by its label."""
    return tuple(_contract(name, versions, plans or {}) for name, versions in contracts.items())


def _contract(name: str, versions: Versions, plans: Mapping[str, PlanView]) -> ContractView:
    newest, *older = (_version(spec, plans.get(spec.label)) for spec in reversed(versions))
    line = line_of(parse_version(versions[-1].version))
    comparison = side_by_side(versions) if len(versions) > 1 else None
    words = dict.fromkeys(word for spec in reversed(versions) for word in _words(spec))
    return ContractView(
        name, newest, tuple(older), f"{name}@{line}", comparison, " ".join(words).lower()
    )


def _version(spec: CallableSpec, plan: PlanView | None) -> VersionView:
    lists = (
        ("Inputs", with_groups(spec, "inputs", inputs_of(spec))),
        ("Static arguments", static_of(spec)),
        ("Outputs", with_groups(spec, "outputs", outputs_of(spec))),
        ("Dimensions", dimensions_of(spec)),
    )
    return VersionView(
        spec.label,
        spec.version,
        # Without the column, which tells a reader nothing.
        spec.where("name").rpartition(":")[0],
        spec.function,
        spec.doc,
        signature(spec),
        tuple((title, parts) for title, parts in lists if parts),
        constraints_of(spec),
        promises(spec),
        plan,
    )


def _words(spec: CallableSpec) -> list[str]:
    """Words as they are, and some with their kind, so that `dim:heads` finds what it says."""
    words = [spec.name, spec.label]
    words += [spec.function] if spec.function else []
    words += _array_words(spec, "input", spec.input_leaves())
    words += _array_words(spec, "output", leaves_of(spec.outputs))
    words += [f"static:{name}" for name in spec.static]
    words += [f"mesh:{axis}" for axis in spec.sharding.values()]
    words += (spec.doc or "").split()
    remarks = [
        *spec.groups.values(),
        *spec.dimensions.values(),
        *(one.doc for one in spec.static.values()),
        *(one.doc for one in spec.constraints),
    ]
    for remark in remarks:
        words += (remark or "").split()
    return words


def _array_words(spec: CallableSpec, kind: str, leaves: Leaves) -> list[str]:
    words = [f"{kind}:{_dotted(path)}" for path, _ in leaves]
    for _, leaf in leaves:
        words += [f"dtype:{one}" for one in spec.dtypes_of(leaf)]
        words += [f"dim:{name}" for name in sorted(leaf.shape.plain_names)]
        words += (leaf.doc or "").split()
    return words


def _dotted(path: Path) -> str:
    return ".".join(path)
