"""Annotations of the torch function: its contract where there is no other, or compared with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import SpecError, SpecProblem

if TYPE_CHECKING:
    from ..spec.annotations.as_contract import AnnotatedSpec
    from ..spec.model import CallableSpec


def annotated_contract(function: Callable[..., Any], name: str) -> AnnotatedSpec | None:
    """The contract that jaxtyping's annotations of ``function`` are, or None."""
    # Reading takes a library that most programs do not load. Without jaxtyping nothing is there.
    if "jaxtyping" not in sys.modules:
        return None
    # Here: a program without contracts starts without pydantic.
    from ..spec.annotations.as_contract import spec_from_annotations

    return spec_from_annotations(function, name)


def contract_of_outputs(
    function: Callable[..., Any], name: str, outputs: object, *, others: bool = False
) -> AnnotatedSpec:
    """The contract that ``outputs`` are, with what annotations say of the inputs.

    Args:
        function: The torch function.
        name: Its name.
        outputs: As a contract has them.
        others: Whether a call has other arrays than its parameters take.

    Raises:
        SpecError: They are not valid.
    """
    # Here: a program without contracts starts without pydantic.
    from ..spec.annotations.as_contract import spec_of_outputs

    annotated = "jaxtyping" in sys.modules
    return spec_of_outputs(function, name, outputs, annotated=annotated, others=others)


def refuse_other_annotations(spec: CallableSpec, function: Callable[..., Any]) -> None:
    """Object to a contract that its function's annotations contradict.

    Raises:
        SpecError: Shows both.
    """
    if "jaxtyping" not in sys.modules:
        return
    # Here: a program without contracts starts without pydantic.
    from ..spec.annotations.agreement import disagreements
    from ..spec.annotations.as_contract import annotated_spec
    from ..spec.annotations.read_function import read_annotations

    found = read_annotations(function)
    if not found.has_arrays:
        return
    place = annotated_spec(found, spec.name, function).where("")
    problems = []
    for one in disagreements(spec, found):
        path = ".".join(one.path)
        expected = f"what the function's annotation says, {one.annotated} [{place}]"
        problems.append(SpecProblem(path, expected, f"{one.declared} [{spec.where(path)}]"))
    if problems:
        raise SpecError(spec.label, tuple(problems))
