"""The keys of ops: ``name@version/digest``, and what is derived from it after another slash."""

from __future__ import annotations

import re

from ..errors import ExportError

# Not split at the first slash or `@`: names may hold both.
_KEY = re.compile(r"(?P<label>.*?@[0-9.]+)/[0-9a-f]{16}")


def label_of_key(key: str) -> str:
    """Name and version of the function that an op comes from, such as ``attention@2.1.0``."""
    match = _KEY.match(key)
    return match["label"] if match else key.partition("/")[0]


def root_of_key(key: str) -> str:
    """The key of the function's own op, which that of a derivative or batch begins with."""
    match = _KEY.match(key)
    return match[0] if match else key


def exported_key(key: str) -> str:
    """The key without the numbers that tell ops of one callable apart: either will do."""
    label = label_of_key(key)
    # The label is left alone: a name may end with such a number itself.
    return label + re.sub(r"~[0-9]+", "", key[len(label) :])


def double_error(label: str) -> ExportError:
    """The error for an export whose calls could mean another function in the process they reach."""
    return ExportError(
        f"{label}: cannot be exported, since another function in this process has the same code "
        "and constants, and differs in its weights or other state only. Give each a name of its "
        "own: jax_callable(..., name=...)."
    )
