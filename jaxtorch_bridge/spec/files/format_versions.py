"""Versions of the file format: which are read, and how older ones become the current one."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from typing import Any

from ...choices import RENAMED
from ...version import __version__
from ..language.problems import Fault
from ..language.wording import quote

CURRENT = 1
CURRENT_ID = f"jaxtorch/{CURRENT}"

_FORMAT = re.compile(r"jaxtorch/(0|[1-9][0-9]{0,8})")

Migration = Callable[[MutableMapping[str, Any]], None]

# Format number -> what makes a file of it one of the next. It edits the mapping in place, so that
# comments stay; it need not set `schema`, and must cope with files that are not valid. Format 1
# is the first, so there is none yet.
MIGRATIONS: dict[int, Migration] = {}


def format_of(data: object) -> int | None:
    """The number of the format that a contract says it has; None if it says no such thing."""
    if not isinstance(data, MutableMapping):
        return None
    said = data.get("schema")
    match = _FORMAT.fullmatch(said) if isinstance(said, str) else None
    return int(match[1]) if match else None


def is_older(data: object) -> bool:
    """Whether `migrate` has something to do."""
    number = format_of(data)
    return number is not None and number < CURRENT and number in MIGRATIONS


def migrate(data: MutableMapping[str, Any]) -> None:
    """Edit ``data``, for which `is_older` is true, so that it has the current format."""
    number = format_of(data)
    while number is not None and number < CURRENT:
        MIGRATIONS[number](data)
        number += 1
    data["schema"] = CURRENT_ID


def rename_words(data: MutableMapping[str, Any]) -> list[tuple[str, str]]:
    """Edit ``data`` so that words which are gone are what took their place.

    Returns:
        Of each the field with the word that it had, and with the one that it has now.
    """
    done = []
    for (field, old), (new, _) in RENAMED.items():
        *parents, name = field.split(".")
        place: Any = data
        for parent in parents:
            place = place.get(parent) if isinstance(place, MutableMapping) else None
        if isinstance(place, MutableMapping) and place.get(name) == old:
            place[name] = new
            done.append((f"{field}: {old}", f"{field}: {new}"))
    return done


def newer_format(data: object) -> Fault | None:
    """What is wrong if the contract's format is newer than this library."""
    number = format_of(data)
    if number is None or number <= CURRENT:
        return None
    expected = f"a format up to {CURRENT_ID}, the newest that jaxtorch-bridge {__version__} reads"
    found = f"{quote(f'jaxtorch/{number}')}; install a newer jaxtorch-bridge"
    return Fault(expected, found, ("schema",))


def rename(data: Any, old: str, new: str) -> None:
    """Give a field another name, at its place and with its comment; for migrations."""
    if old not in data:
        return
    keys = list(data)
    place, value = keys.index(old), data.pop(old)
    if hasattr(data, "insert"):  # ruamel's mapping, which keeps comments by name
        if old in data.ca.items:
            data.ca.items[new] = data.ca.items.pop(old)
        data.insert(place, new, value)
        return
    # A plain dict has no `insert`: what stands behind is taken out and put back.
    later = {key: data.pop(key) for key in keys[place + 1 :]}
    data[new] = value
    data.update(later)
