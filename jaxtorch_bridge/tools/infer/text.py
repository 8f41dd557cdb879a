"""A contract as YAML with remarks, in the order in which people write one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ...spec.files.yaml_document import Dumper

# Where remarks begin behind a line, in characters.
_COLUMN = 44

# Remarks on parts of a contract, by their paths.
Remarks = Mapping[tuple[str, ...], str]


def text_of(contract: Mapping[str, Any], head: str, remarks: Remarks) -> str:
    """The contract as YAML text.

    Args:
        contract: As `CallableSpec.to_dict` gives it.
        head: Remarks at the beginning, one a line.
        remarks: At the end of lines; none may stand on an array in the long form.
    """
    lines = [f"# {line}" for line in head.splitlines()]
    for field, value in contract.items():
        lines += _lines(field, value, (field,), "", remarks)
    return "\n".join(lines) + "\n"


def _lines(
    key: str, value: Any, path: tuple[str, ...], indent: str, remarks: Remarks
) -> Iterator[str]:
    shown = key if key.isidentifier() else json.dumps(key)
    if isinstance(value, Mapping) and value and not _is_flow(path, value):
        yield _with_remark(f"{indent}{shown}:", remarks.get(path))
        for name, child in value.items():
            yield from _lines(str(name), child, (*path, str(name)), indent + "  ", remarks)
    elif isinstance(value, list) and value and path[0] in ("inputs", "outputs", "constraints"):
        yield f"{indent}{shown}:"
        for index, child in enumerate(value):
            item = _flow(child)
            yield _with_remark(f"{indent}  - {item}", remarks.get((*path, str(index))))
    else:
        yield _with_remark(f"{indent}{shown}: {_flow(value)}", remarks.get(path))


def _is_flow(path: tuple[str, ...], value: Mapping[str, Any]) -> bool:
    """Whether a mapping stands on one line: an array in the long form, a static argument."""
    return len(path) > 1 and (path[0] == "static" or "dtype" in value)


def _flow(value: Any) -> str:
    text: str = yaml.dump(
        value,
        Dumper=Dumper,
        default_flow_style=True,
        sort_keys=False,
        width=1000,
        allow_unicode=True,
    )
    # PyYAML puts a document's end behind a value that stands alone.
    return text.removesuffix("...\n").strip()


def _with_remark(line: str, remark: str | None) -> str:
    return line if remark is None else f"{line:<{_COLUMN}}  # {remark}"
