"""Contract files of an older format, or with words that are gone, rewritten; comments kept."""

from __future__ import annotations

import io
from collections.abc import MutableMapping
from typing import Any

from ...errors import SpecError, SpecProblem
from .atomic_write import write_whole
from .format_versions import CURRENT_ID, is_older, migrate, rename_words
from .read_contract import read_bytes, read_spec
from .yaml_document import read_document


def rewrite(file: str, *, write: bool) -> list[tuple[str, str]]:
    """Bring ``file`` to the current format, at once or not at all.

    Args:
        file: The contract.
        write: Whether to write it, or only to find out.

    Returns:
        What was older, and what it is now; nothing if all of it is current.

    Raises:
        SpecError: If it is not valid, or cannot be rewritten without changing what it says.
        OSError: If it cannot be read or written.
        ModuleNotFoundError: If ruamel.yaml is missing.
    """
    raw = read_bytes(file)
    # Also refuses what no contract may hold, before a second parser sees the text.
    spec = read_spec(raw, file, old_words=True)
    data = read_document(raw, file).data
    changes = _update(data) if isinstance(data, dict) else []
    if changes and write:
        text = _rewritten(raw.decode("utf-8-sig"))
        # ruamel is another parser; that it read the same is looked at, not trusted.
        if read_spec(text.encode(), file) != spec:
            expected = f"the same contract in {CURRENT_ID}"
            problem = SpecProblem("", expected, "another one; rewrite it by hand", file)
            raise SpecError(file, (problem,))
        write_whole(file, text)
    return changes


def _update(data: MutableMapping[str, Any]) -> list[tuple[str, str]]:
    changes = []
    if is_older(data):
        changes.append((str(data["schema"]), CURRENT_ID))
        migrate(data)
    return changes + rename_words(data)


def _rewritten(text: str) -> str:
    # Of the extra `cli`: nothing else here needs it.
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 10_000  # lines stay as long as they are
    # As the file has its lists, so that only what changes shows in a diff.
    yaml.indent(mapping=2, sequence=indent or 4, offset=2 if offset is None else offset)
    data = yaml.load(text)
    _update(data)
    stream = io.StringIO()
    yaml.dump(data, stream)
    result = stream.getvalue()
    return result.replace("\n", "\r\n") if "\r\n" in text else result
