"""Arrays of a call held against the contract, and the error for one that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import SpecMismatchError
from ..language.problems import Path
from ..language.sizes import Binder, Clash, PartlyKnown, Sizes
from ..model import CallableSpec
from ..tensor import TensorSpec

ShapeAndDtype = tuple[tuple[int, ...], str]


@dataclass(frozen=True)
class Subject:
    """The input or output that a message is about."""

    spec: CallableSpec
    kind: str
    path: Path
    when: str = ""

    @property
    def name(self) -> str:
        """What a call names it by."""
        return ".".join(self.path)

    def error(self, expected: str, found: str, remedy: str, sizes: Sizes) -> SpecMismatchError:
        """Where, what was expected, what came and what to try."""
        came = f"torch returned {found} {self.when}" if self.when else f"got {found}"
        bound = f" Sizes so far: {sizes}." if str(sizes) else ""
        path = ".".join((f"{self.kind}s", *self.path))
        place = self.spec.where(path)
        return SpecMismatchError(
            f"{self.spec.label}, {self.kind} `{self.name}`: expected {expected}; {came}.{bound} "
            f"{remedy} [{place}]",
            callable_name=self.spec.label,
            argument=self.name,
            sizes=sizes.named,
            path=path,
            place=place,
            expected=expected,
            found=came,
        )


def compare(
    binder: Binder,
    given: Sequence[tuple[Subject, TensorSpec, PartlyKnown]],
    remedy: str,
) -> None:
    """Bind and check the dimensions of some arrays.

    Args:
        binder: What is bound so far; gets what these bind.
        given: Each array with the contract's words on it and its shape.
        remedy: What to try, for the message.

    Raises:
        SpecMismatchError: One does not fit the contract, or contradicts another.
    """
    # All plain names first: arithmetic may speak of a name that a later array binds.
    for step in (_bind, _check):
        for subject, leaf, shape in given:
            step(binder, subject, leaf, shape, remedy)


def _bind(
    binder: Binder, subject: Subject, leaf: TensorSpec, shape: PartlyKnown, remedy: str
) -> None:
    try:
        binder.bind(leaf.shape, shape, subject.name)
    except Clash as clash:
        found = f"{clash.found} in shape {shape}"
        raise subject.error(clash.expected, found, remedy, binder.sizes) from None


def _check(
    binder: Binder, subject: Subject, leaf: TensorSpec, shape: PartlyKnown, remedy: str
) -> None:
    try:
        binder.check(leaf.shape, shape)
    except Clash as clash:
        found = f"{clash.found} in shape {shape}"
        raise subject.error(clash.expected, found, remedy, binder.sizes) from None
