"""The arguments of a call that are no arrays."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import SpecMismatchError
from ..language.wording import did_you_mean, listed, show
from ..model import CallableSpec


def check_static(spec: CallableSpec, given: Mapping[str, object]) -> None:
    """Do nothing if the static arguments of a call are those of the contract.

    Args:
        spec: The contract.
        given: Name -> value of each argument that is no array. None and empty containers may also
            be inputs that are left out.

    Raises:
        SpecMismatchError: If one is not listed, has another type or is none of the choices, or
            if one that has no default is missing.
    """
    for name, value in given.items():
        if name in spec.static:
            expected = spec.static[name].problem_with(value)
            if expected is not None:
                remedy = "Pass such a value, or change the contract."
                raise _static_error(spec, name, expected, show(value), remedy, f"static.{name}")
        elif not _is_empty(value) and (name in spec.inputs or spec.complete):
            raise _unknown_static(spec, name)
    for name, static in spec.static.items():
        if static.required and name not in given:
            kind = f"a value of type `{static.type}`" if static.type else "a value"
            remedy = "Pass it, or give it a `default` in the contract."
            raise _static_error(spec, name, kind, "nothing", remedy, f"static.{name}")


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, (list, tuple, dict)) and not value)


def _unknown_static(spec: CallableSpec, name: str) -> SpecMismatchError:
    if name in spec.inputs:
        expected, remedy = "an array, as it is an input in the contract", "Pass an array."
        return _static_error(spec, name, expected, "a static value", remedy, f"inputs.{name}")
    known = did_you_mean(name, spec.static)
    expected = f"one of the static arguments {listed(spec.static)}{known}"
    remedy = "List it under `static` in the contract or leave it out."
    return _static_error(spec, name, expected, "a static value", remedy, "static")


def _static_error(
    spec: CallableSpec, name: str, expected: str, found: str, remedy: str, path: str
) -> SpecMismatchError:
    return SpecMismatchError(
        f"{spec.label}, argument `{name}`: expected {expected}; got {found}. {remedy} "
        f"[{spec.where(path)}]",
        callable_name=spec.label,
        argument=name,
        path=path,
        place=spec.where(path),
        expected=expected,
        found=f"got {found}",
    )
