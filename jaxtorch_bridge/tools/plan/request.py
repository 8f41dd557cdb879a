"""Which call a person asks about: a contract, and the sizes and choices of one call."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping

from ...dtypes import DTYPES
from ...spec.files.contract_files import SUFFIXES
from ...spec.files.load import load_spec
from ...spec.files.registry import find_newest, is_reference
from ...spec.files.search_path import SearchPath, find_search_path
from ...spec.language.static_arguments import Value
from ...spec.language.wording import did_you_mean, listed, quote
from ...spec.model import CallableSpec
from ..check.cases import Case, Path, dtype_choices, has_rest, static_choices, values_of
from ..check.sizes import SizeSearch


class RequestError(ValueError):
    """A request that does not fit the contract it is about."""


def contract_named(text: str) -> CallableSpec:
    """The contract in a file, or by name: ``attention@2``, or ``attention`` for the newest.

    Raises:
        SpecError: There is none, or it is not valid.
    """
    is_name = all(part.isidentifier() for part in text.split("."))
    if os.path.exists(text) or is_reference(text) or not is_name or text.endswith(SUFFIXES):
        return load_spec(text)
    search = find_search_path()
    if not search.folders and os.path.isdir("specs"):
        search = SearchPath(("specs",), "no search path")
    return find_newest(text, search)


def case_of(
    spec: CallableSpec,
    sizes: Iterable[str],
    *,
    static: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    without: Iterable[str] = (),
) -> Case:
    """The call that is asked about.

    Args:
        spec: The contract.
        sizes: Such as ``batch=8,seq=128`` or ``...=2x3``; every dimension of the inputs needs one.
        static: Such as ``causal=true``; of the others the default.
        dtypes: Such as ``x=bfloat16``, for inputs that may have several.
        without: Optional inputs to leave out.

    Raises:
        RequestError: A size is missing, or something does not fit the contract.
    """
    given = dict(_pairs(sizes, "--shape", "batch=8,seq=128"))
    # Taken out first: `...` is none of the names below.
    rest = _rest(spec, given.pop("...", None))
    names = SizeSearch(spec).names
    unknown = [name for name in given if name not in names]
    if unknown:
        hint = did_you_mean(unknown[0], names)
        raise RequestError(
            f"--shape: expected dimensions of {spec.label}, {listed(names)}{hint}; got "
            f"{quote(unknown[0])}"
        )
    missing = [name for name in names if name not in given]
    if missing:
        example = ",".join(f"{name}=8" for name in missing)
        raise RequestError(f"--shape lacks {listed(missing)} of {spec.label}; add {example}")
    found = tuple((name, _size(name, given[name])) for name in names)
    left_out = frozenset(_optional(spec, name) for name in without)
    return Case(found, rest, _static(spec, static), left_out, _dtypes(spec, dtypes))


def mesh_of(texts: Iterable[str], spec: CallableSpec) -> dict[str, int] | None:
    """The sizes of mesh axes, such as ``data=2``; None if none are given.

    Raises:
        RequestError: The contract has no such axis, or that is no size.
    """
    found: dict[str, int] = {}
    for name, text in _pairs(texts, "--mesh", "data=2,model=4"):
        axes = sorted(set(spec.sharding.values()))
        if name not in axes:
            raise RequestError(
                f"--mesh: expected a mesh axis of {spec.label}, {listed(axes)}"
                f"{did_you_mean(name, axes)}; got {quote(name)}"
            )
        found[name] = _size(name, text)
        if not found[name]:
            raise RequestError(f"--mesh: expected at least 1 device along `{name}`; got 0")
    return found or None


def _pairs(texts: Iterable[str], option: str, example: str) -> Iterable[tuple[str, str]]:
    for text in texts:
        for part in text.split(","):
            name, sign, value = (one.strip() for one in part.partition("="))
            if not (name and sign and value):
                raise RequestError(f"{option}: expected {example}; got {quote(text)}")
            yield name, value


def _size(name: str, text: str) -> int:
    # As many digits as a size in a contract may have.
    if not text.isdecimal() or len(text) > 18:
        raise RequestError(f"--shape: expected a size for `{name}`; got {quote(text)}")
    return int(text)


def _rest(spec: CallableSpec, text: str | None) -> tuple[int, ...]:
    if text is None or not has_rest(spec):
        if text is not None:
            raise RequestError(f"--shape: {spec.label} has no `...`")
        return ()
    return tuple(_size("...", part) for part in text.split("x"))


def _static(spec: CallableSpec, texts: Iterable[str]) -> tuple[tuple[str, Value], ...]:
    # Values may hold commas, so each comes with an option of its own.
    given: dict[str, Value] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if name not in spec.static or not sign:
            names = list(spec.static)
            raise RequestError(
                f"--static: expected NAME=VALUE with one of {listed(names)}"
                f"{did_you_mean(name, names)}; got {quote(text)}"
            )
        given[name] = value_of(value)
        expected = spec.static[name].problem_with(given[name])
        if expected is not None:
            raise RequestError(f"--static {name}: expected {expected}; got {quote(value)}")
    # Empty if one argument has no value to try; which one is found below.
    defaults = dict((static_choices(spec) or ((),))[0])
    unknown = [
        name for name in spec.static if name not in given and not values_of(spec.static[name])
    ]
    if unknown:
        raise RequestError(f"--static lacks {listed(unknown)} of {spec.label}")
    return tuple((name, given.get(name, defaults.get(name))) for name in spec.static)


def value_of(text: str) -> Value:
    """A value as YAML and as Python write it; anything else is a string."""
    words: Mapping[str, Value] = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        # Literals alone: nothing that is typed gets run.
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    # A contract holds lists as tuples.
    if isinstance(found, list):
        return tuple(found)
    return found if isinstance(found, (bool, int, float, str, tuple, type(None))) else text


def _optional(spec: CallableSpec, name: str) -> Path:
    optional = [path for path, leaf in spec.input_leaves() if leaf.optional]
    for path in optional:
        if ".".join(path) == name:
            return path
    names = [".".join(path) for path in optional]
    raise RequestError(
        f"--without: expected one of the optional inputs {listed(names)}"
        f"{did_you_mean(name, names)}; got {quote(name)}"
    )


def _dtypes(spec: CallableSpec, texts: Iterable[str]) -> tuple[tuple[Path, str], ...]:
    found = dict(dtype_choices(spec)[0])
    names = {".".join(path): path for path in found}
    leaves = dict(spec.input_leaves())
    for name, dtype in _pairs(texts, "--dtype", "x=bfloat16"):
        if name not in names:
            raise RequestError(
                f"--dtype: expected one of the inputs with several dtypes, {listed(names)}; got "
                f"{quote(name)}"
            )
        choices = spec.dtypes_of(leaves[names[name]])
        if dtype not in choices:
            hint = did_you_mean(dtype, DTYPES)
            raise RequestError(
                f"--dtype {name}: expected one of {listed(choices)}{hint}; got {quote(dtype)}"
            )
        found[names[name]] = dtype
    return tuple(found.items())
