"""Which names a contract may use where Python code will."""

from __future__ import annotations

import keyword
import unicodedata


def is_identifier(name: object) -> bool:
    """Whether ``name`` can be a parameter, as it is written."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not keyword.iskeyword(name)
        # An identifier and no keyword, but Python lets nobody assign to it.
        and name != "__debug__"
        # Python reads other spellings of a letter (a ligature, say) as the plain one.
        and unicodedata.is_normalized("NFKC", name)
    )


def is_dotted_name(text: str) -> bool:
    """Whether ``text`` is identifiers with dots between."""
    return all(map(is_identifier, text.split(".")))
