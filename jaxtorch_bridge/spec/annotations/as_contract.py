"""A function's annotations as its contract, and outputs that stand in for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import PrivateAttr, ValidationError

from ..files.format_versions import CURRENT_ID
from ..files.read_contract import from_mapping
from ..language.frozen_mapping import FrozenDict
from ..language.identifiers import is_dotted_name
from ..model import CallableSpec
from ..source_positions import Positions
from .read_function import Annotations, code_of, read_annotations


class AnnotatedSpec(CallableSpec):
    """A contract that stands in annotations; it has no version of its own.

    Arguments that they do not speak of may be anything, and so may the results where `outputs` is
    empty.
    """

    _unread: tuple[tuple[str, str], ...] = PrivateAttr(())
    _complete: bool = PrivateAttr(True)
    _called: str = PrivateAttr("")

    @property
    def label(self) -> str:
        """The callable's name alone, also where no contract may have that (``<lambda>``)."""
        return self._called

    @property
    def at_version(self) -> str:
        """Nothing: there are no versions."""
        return ""

    @property
    def unread(self) -> tuple[tuple[str, str], ...]:
        """Parameters (and ``return``) that are not enforced, each with the reason."""
        return self._unread

    @property
    def complete(self) -> bool:
        """Whether every parameter is annotated."""
        return self._complete and not self._unread


def spec_of_outputs(
    function: Callable[..., Any],
    name: str,
    outputs: object,
    *,
    annotated: bool,
    others: bool = False,
) -> AnnotatedSpec:
    """The contract of a function whose outputs are given as a contract gives them.

    Args:
        function: The torch function.
        name: Its name.
        outputs: A mapping as under ``outputs``, or one array as ``float32[n<=100]``.
        annotated: Whether its annotations say what they can of the inputs.
        others: Whether a call has other arrays than the function's parameters take.

    Raises:
        SpecError: They are not valid.
    """
    found = read_annotations(function) if annotated else Annotations()
    named = {"output": outputs} if isinstance(outputs, str) else outputs
    parts = {**_parts(found, name), "outputs": named}
    spec = from_mapping({"schema": CURRENT_ID, **parts}, AnnotatedSpec)
    spec._complete = found.has_arrays and not others
    spec._unread = tuple(one for one in found.unread.items() if one[0] != "return")
    return _at(spec, function, name)


def spec_from_annotations(function: Callable[..., Any], name: str) -> AnnotatedSpec | None:
    """The contract in a function's annotations; None if no array in them has a shape."""
    found = read_annotations(function)
    return annotated_spec(found, name, function) if found.has_arrays else None


def annotated_spec(found: Annotations, name: str, function: Callable[..., Any]) -> AnnotatedSpec:
    """The contract that ``found`` is."""
    parts = {**_parts(found, name), "outputs": FrozenDict(found.outputs or {})}
    try:
        spec = AnnotatedSpec.model_validate({"schema": CURRENT_ID, **parts})
    except ValidationError:
        # Arithmetic over names that nothing binds, or no results: what is there still holds.
        spec = AnnotatedSpec.model_construct(schema_id=CURRENT_ID, **parts)
    spec._unread = tuple(found.unread.items())
    return _at(spec, function, name)


def _parts(found: Annotations, name: str) -> dict[str, Any]:
    return {
        "name": name if is_dotted_name(name) else "function",
        # A contract needs both; `label` leaves them out.
        "version": "0.0.0",
        "inputs": FrozenDict(found.inputs),
        "static": FrozenDict(found.static),
    }


def _at(spec: AnnotatedSpec, function: Callable[..., Any], name: str) -> AnnotatedSpec:
    spec._called = name
    # Annotations have no lines of their own: all parts stand where the function does.
    code = code_of(function)
    if code is not None:
        place = (code.__code__.co_firstlineno, 1)
        spec._positions = Positions(code.__code__.co_filename, {(): place}, {})
    return spec
