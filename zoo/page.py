"""What came of each model, and the page that says so."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

WAYS = ("called as it is", "jit", "from_module", "jit of it", "value_and_grad", "training")

_HEAD = """# Models that run

Architectures of transformers and timm with random weights, each called from JAX and compared with
torch on the same input: the module as it is in `jax_callable`, eager and under `jit`; through
`from_module`, eager and under `jit`; the gradient of all parameters; and, where a model has running
statistics, a call in training mode with what becomes of them. Right means that values differ from
torch's by less than one part in 10,000 of the greatest. `make zoo` makes this page; this one is of
{versions}.

"""
_LIBRARIES = ("torch", "jax", "transformers", "timm")


@dataclass
class Row:
    """What came of one model.

    Attributes:
        library: ``transformers`` or ``timm``.
        name: The model.
        found: For each way ``right``, ``-`` (does not apply), or what went wrong.
        seconds: What it took.
    """

    library: str
    name: str
    found: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether all ways that apply gave torch's results."""
        return all(word in ("right", "-") for word in self.found.values())


def write_page(rows: Sequence[Row], path: Path) -> None:
    """Write the page: names alone where all is right, and what was refused or failed."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    lines = [_HEAD.format(versions=", ".join(versions))]
    for library in dict.fromkeys(row.library for row in rows):
        own = sorted((row for row in rows if row.library == library), key=lambda row: row.name)
        right = [row for row in own if row.right]
        lines.append(f"## {library}: {len(right)} of {len(own)}\n\n")
        lines.append(", ".join(f"`{row.name}`" for row in right) + "\n\n")
        others = [row for row in own if not row.right]
        if others:
            lines.append("| model | what does not work |\n|---|---|\n")
        for row in others:
            wrong = [
                f"{way}: {word}" for way, word in row.found.items() if word not in ("right", "-")
            ]
            lines.append(f"| `{row.name}` | {'; '.join(wrong).replace('|', '/')} |\n")
    path.write_text("".join(lines).rstrip() + "\n")
