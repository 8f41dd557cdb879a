"""The names that a stub brings in or makes up, kept apart from those of the contracts."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Where each name that an annotation uses comes from; all others are dtypes of jaxtyping.
_HOMES = {
    **dict.fromkeys(("Any", "Literal", "NotRequired", "Self", "TypedDict", "overload"), "typing"),
    "Sequence": "collections.abc",
    **dict.fromkeys(("bool", "float", "int", "str", "tuple", "type"), "builtins"),
    "Array": "jax",
    "JaxCallable": "jaxtorch_bridge",
    "Tensor": "torch",
}


class Names:
    """Names of one module's stub.

    Args:
        taken: Names that the contracts give: of functions, classes and keys of dicts.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*taken}
        self._imported: dict[str, str] = {}

    def use(self, symbol: str) -> str:
        """What to call ``symbol`` (``Array``, ``Float32``, ...), which will be imported."""
        if symbol not in self._imported:
            # A function called `float` must not become the type of its own arguments.
            self._imported[symbol] = self._free(symbol) if symbol in self._taken else symbol
        return self._imported[symbol]

    def make(self, *parts: str) -> str:
        """A new private class name out of ``parts``: ``_AttentionParams``."""
        words = [word for part in parts for word in re.findall(r"[A-Za-z0-9]+", part)]
        return self._free("".join(word[0].upper() + word[1:] for word in words) or "Unnamed")

    def imports(self) -> list[str]:
        """The import statements, sorted, for everything that was used."""
        by_home: dict[str, list[str]] = {}
        for symbol, local in sorted(self._imported.items()):
            home = _HOMES.get(symbol, "jaxtyping")
            # Builtins need no import, unless a contract took their name.
            if home != "builtins" or local != symbol:
                entry = symbol if local == symbol else f"{symbol} as {local}"
                by_home.setdefault(home, []).append(entry)
        return [
            f"from {home} import {', '.join(by_home[home])}"
            for home in sorted(by_home, key=_standard_first)
        ]

    def _free(self, base: str) -> str:
        name, count = f"_{base}", 1
        while name in self._taken:
            count += 1
            name = f"_{base}{count}"
        self._taken.add(name)
        return name


def _standard_first(home: str) -> tuple[bool, str]:
    return home not in ("builtins", "collections.abc", "typing"), home
