"""From a contract's bytes, or a dict, to a `CallableSpec`; problems have their lines."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ...errors import SpecError, SpecProblem
from ..execution import Execution
from ..language.problems import Fault, Path, faults_of
from ..language.wording import escaped, show
from ..model import CallableSpec
from .format_versions import is_older, migrate, newer_format, rename_words
from .yaml_document import MOST_BYTES, Document, DocumentError, Dumper, read_document

SpecT = TypeVar("SpecT", bound=CallableSpec)

_FIELDS = tuple(info.alias or name for name, info in CallableSpec.model_fields.items())


def dump_spec(spec: CallableSpec) -> str:
    """The contract as YAML text, which `load_spec` reads back as an equal one."""
    text: str = yaml.dump(
        spec.to_dict(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text


def from_mapping(
    data: Mapping[str, object],
    model: type[SpecT] = CallableSpec,  # type: ignore[assignment]
) -> SpecT:
    """The contract in a dict.

    Raises:
        SpecError: If it is not valid.
    """
    try:
        return model.model_validate(_in_current_format(dict(data)))
    except (ValidationError, _NewerFormat) as error:
        faults = _faults(error) if isinstance(error, ValidationError) else (error.fault,)
        problems = tuple(SpecProblem(_dotted(one.path), one.expected, one.found) for one in faults)
        name = data.get("name")
        raise SpecError(name if isinstance(name, str) else "contract", problems) from None


def read_spec(raw: bytes, file: str, *, old_words: bool = False) -> CallableSpec:
    """The contract in ``raw``, the bytes of a YAML file that messages call ``file``.

    Args:
        raw: Its content.
        file: Its name.
        old_words: Take words that are gone for what took their place, instead of refusing them.

    Raises:
        SpecError: If it is not valid.
    """
    return _read_spec(lambda: raw, file, old_words)


def read_bytes(file: str) -> bytes:
    """The content of a contract file; of one that is too large no more than shows that.

    Raises:
        SpecError: If it cannot be read.
    """
    try:
        return _read(file)
    except DocumentError as error:
        raise SpecError(file, (SpecProblem("", error.expected, error.found, file),)) from None


def load_file(file: str, *, hint: str = "") -> CallableSpec:
    """The contract in the YAML file ``file``.

    Args:
        file: Its path.
        hint: What to add where it cannot be read.

    Raises:
        SpecError: If it cannot be read or is not valid.
    """
    return _read_spec(lambda: _read(file, hint), file)


def _read_spec(read: Callable[[], bytes], file: str, old_words: bool = False) -> CallableSpec:
    try:
        document = read_document(read(), file)
    except DocumentError as error:
        line, column = error.position or (None, None)
        path = _dotted(error.path)
        problem = SpecProblem(path, error.expected, error.found, file, line, column)
        raise SpecError(file, (problem,)) from None
    return _from_document(document, old_words)


def _read(file: str, hint: str = "") -> bytes:
    try:
        with open(file, "rb") as stream:
            # One byte more than allowed tells a file of any size apart, without reading it all.
            return stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DocumentError("a readable file", f"{reason}{hint}") from None


def _from_document(document: Document, old_words: bool) -> CallableSpec:
    file = document.positions.file
    placed = list(document.faults)
    spec = None
    if isinstance(document.data, dict):
        try:
            spec = CallableSpec.model_validate(_in_current_format(document.data, old_words))
        except _NewerFormat as error:
            # What else looks wrong may be right in that format.
            placed = [(error.fault, _place(error.fault, document))]
        except ValidationError as error:
            placed += [(one, _place(one, document)) for one in _faults(error)]
    else:
        fault = Fault("a mapping", show(document.data))
        placed.append((fault, document.positions.of_value(())))
    if placed or spec is None:
        # In the order of the file, whichever check found them.
        placed.sort(key=lambda pair: pair[1])
        raise SpecError(file, tuple(_problem(one, file, *position) for one, position in placed))
    return spec.located(document.positions)


class _NewerFormat(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


def _in_current_format(data: dict[str, Any], old_words: bool = False) -> dict[str, Any]:
    fault = newer_format(data)
    if fault is not None:
        raise _NewerFormat(fault)
    if old_words or is_older(data):
        data = copy.deepcopy(data)  # it may be the caller's
    if is_older(data):
        migrate(data)
    if old_words:
        rename_words(data)
    return data


def _faults(error: ValidationError) -> tuple[Fault, ...]:
    # Below the top only `execution` can have an unknown field here: arrays and static arguments
    # word their own problems.
    return faults_of(error, lambda path: Execution.model_fields if path else _FIELDS)


def _place(fault: Fault, document: Document) -> tuple[int, int]:
    positions = document.positions
    return positions.of_key(fault.path) if fault.at_key else positions.of_value(fault.path)


def _problem(fault: Fault, file: str, line: int, column: int) -> SpecProblem:
    return SpecProblem(_dotted(fault.path), fault.expected, fault.found, file, line, column)


def _dotted(path: Path) -> str:
    # Names come from the file, and a message must not fail to print because of one.
    return ".".join(escaped(part) for part in path)
