"""Contract files of an older format rewritten in the current one, comments kept."""

from __future__ import annotations

import io

from ...errors import SpecError, SpecProblem
from .atomic_write import write_whole
from .format_versions import CURRENT_ID, is_older, migrate
from .read_contract import read_bytes, read_spec
from .yaml_document import read_document


def rewrite(file: str, *, write: bool) -> str | None:
    """Bring ``file`` to the current format, at once or not at all.

    Args:
        file: The contract.
        write: Whether to write it, or only to find out.

    Returns:
        The format that it had, or None if that is the current one.

    Raises:
        SpecError: If it is not valid, or cannot be rewritten without changing what it says.
        OSError: If it cannot be read or written.
        ModuleNotFoundError: If ruamel.yaml is missing.
    """
    raw = read_bytes(file)
    # Also refuses what no contract may hold, before a second parser sees the text.
    spec = read_spec(raw, file)
    data = read_document(raw, file).data
    if not is_older(data) or not isinstance(data, dict):
        return None
    before = str(data["schema"])
    if write:
        text = _rewritten(raw.decode("utf-8-sig"))
        if read_spec(text.encode(), file) != spec:
            expected = f"the same contract in {CURRENT_ID}"
            problem = SpecProblem("", expected, "another one; rewrite it by hand", file)
            raise SpecError(file, (problem,))
        write_whole(file, text)
    return before


def _rewritten(text: str) -> str:
    # Of the extra `cli`: nothing else here needs it.
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 10_000  # lines stay as long as they are
    yaml.indent(mapping=2, sequence=indent or 4, offset=2 if offset is None else offset)
    data = yaml.load(text)
    migrate(data)
    stream = io.StringIO()
    yaml.dump(data, stream)
    result = stream.getvalue()
    return result.replace("\n", "\r\n") if "\r\n" in text else result
