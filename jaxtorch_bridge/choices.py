"""Words that contracts and keywords share."""

from __future__ import annotations

from typing import Literal

VmapMethod = Literal[
    "torch_vmap", "sequential", "sequential_unrolled", "expand_dims", "broadcast_all"
]
ConcurrencyMode = Literal["parallel", "locked"]
Backend = Literal["eager", "compile", "graph", "xla", "auto"]
# Of these the function's own code does not run in calls.
GRAPH_BACKENDS: tuple[Backend, ...] = ("graph", "compile", "xla")
OutputsMode = Literal["in_place", "copy", "auto"]
Residuals = Literal["tape", "recompute", "auto"]
RandomMode = Literal["none", "key"]

# Words that are gone, by the field that they stood in: the word that took their place, and what
# else can be done.
RENAMED: dict[tuple[str, str], tuple[str, str]] = {
    ("concurrency", "replicated"): (
        "locked",
        "to swap parameters in calls at the same time, take the module by `from_module`",
    ),
    ("execution.backend", "aot"): ("graph", ""),
    ("residuals", "save"): ("tape", ""),
}


def renamed(field: str, word: object) -> str:
    """What to say of a word that is gone, after it; nothing for other words."""
    # Anything may stand in a contract, also what cannot be a key of the table.
    new, advice = RENAMED.get((field, word), ("", "")) if isinstance(word, str) else ("", "")
    return f", which is `{new}` now{advice and f' ({advice})'}" if new else ""
