"""What a contract says that its function does not, and what is not enforced."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import SpecError, SpecProblem

if TYPE_CHECKING:
    from ..spec.model import CallableSpec


def refuse_other_defaults(spec: CallableSpec, function: Callable[..., Any]) -> None:
    """Object to a static argument whose default in the contract is not the function's own.

    Raises:
        SpecError: Names both defaults.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins have none
        return
    problems = []
    for name, static in spec.static.items():
        found = parameters[name].default if name in parameters else inspect.Parameter.empty
        if static.required or found is inspect.Parameter.empty:
            continue
        if not static.has_default(found):
            path = f"static.{name}"
            expected = f"the function's own default {found!r} [{spec.where(path)}]"
            problems.append(SpecProblem(path, expected, f"{static.default!r}"))
    if problems:
        raise SpecError(spec.label, tuple(problems))


def not_acted_on(spec: CallableSpec | None) -> tuple[str, ...]:
    """What a contract does not enforce, for `explain`."""
    if spec is None:
        return ()
    return tuple(f"annotation of {name}: not enforced, {reason}" for name, reason in spec.unread)
