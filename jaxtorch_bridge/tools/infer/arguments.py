"""Which parameters the examples are for, and what the others are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...spec.language.static_arguments import Scalar
from ...spec.language.wording import did_you_mean, listed, quote
from ..plan.request import RequestError, value_of
from .examples import Example, Path
from .lists import gap_in
from .probe import parameters_of

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_TYPES = {bool: "bool", int: "int", float: "float", str: "str"}


def arrays_of(
    function: Callable[..., Any], examples: Sequence[Example], target: str
) -> dict[Path, Example]:
    """The example of each array, in the order of the parameters.

    Raises:
        RequestError: There are more examples than parameters, one is for none, or a list has gaps.
    """
    names = [name for name, one in parameters_of(function).items() if one.kind not in _VARIADIC]
    if not names:
        raise RequestError(f"{target} has no parameters that can be named; wrap it in a function")
    named = {one.path[0] for one in examples if one.path is not None}
    free = [name for name in names if name not in named]
    found: dict[Path, Example] = {}
    for one in examples:
        if one.path is None:
            if not free:
                raise RequestError(f"--example: {target} has only {len(names)} parameters")
            path: Path = (free.pop(0),)
        else:
            path = one.path
            if path[0] not in names:
                hint = did_you_mean(path[0], names)
                raise RequestError(
                    f"--example: expected one of the parameters {listed(names)}{hint}; got "
                    f"{quote(path[0])}"
                )
        # Also one that lies inside of another: `params` beside `params.w`.
        if any(path[: len(other)] == other or other[: len(path)] == path for other in found):
            raise RequestError(f"--example: two for {quote('.'.join(path))}")
        found[path] = one
    gap = gap_in(found)
    if gap is not None:
        raise RequestError(
            f"--example: expected one for {quote('.'.join(gap))}, as numbers are positions in a "
            "list; got none"
        )
    return dict(sorted(found.items(), key=lambda item: names.index(item[0][0])))


def static_of(
    function: Callable[..., Any],
    arrays: Mapping[Path, Example],
    texts: Sequence[str],
    target: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values for the parameters that are no arrays, and what the contract says of all of them.

    Raises:
        RequestError: A parameter has neither an example, nor a default, nor a value.
    """
    given = {}
    parameters = parameters_of(function)
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or name not in parameters:
            hint = did_you_mean(name, parameters)
            raise RequestError(
                f"--static: expected NAME=VALUE with a parameter of {target}{hint}; got "
                f"{quote(text)}"
            )
        given[name] = value_of(value)
    taken = {path[0] for path in arrays}
    declared: dict[str, Any] = {}
    for name, one in parameters.items():
        if name in taken or one.kind in _VARIADIC:
            continue
        if one.default is inspect.Parameter.empty:
            if name not in given:
                raise RequestError(
                    f"{target}: parameter `{name}` has no default; give it an array "
                    f'(--example "{name}=float32[8]") or a value (--static {name}=1)'
                )
            kind = _TYPES.get(type(given[name]))
            # Tried with this value alone, so that no other may be passed.
            declared[name] = {**({"type": kind} if kind else {}), "choices": [_plain(given[name])]}
        elif one.default is not None and _is_plain(one.default):
            # Of None nobody knows whether an array or a value stands in for it.
            declared[name] = _plain(one.default)
    return given, declared


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(isinstance(one, Scalar) for one in value)
    return isinstance(value, Scalar)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
