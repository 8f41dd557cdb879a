"""Stubs on disk: where each belongs, and how it differs from what stands there."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ...spec.files.generated_files import Generated, text_of
from .collect import Collected, StubModule
from .render import MARK, render


@dataclass(frozen=True)
class Stub(Generated):
    """One stub, next to what stands in its place now.

    Attributes:
        module: The module it is for.
    """

    module: StubModule

    def diff(self) -> str:
        """From the file to what it should say, as a unified diff; empty if they agree."""
        name = self.path.as_posix()
        before = "" if self.found is None else self.found
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            self.text.splitlines(keepends=True),
            name if self.found is not None else "/dev/null",
            f"{name} (from the contracts)",
        )
        # A last line without an end would run into the next one.
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def stubs_in(out: Path, collected: Collected, as_dict: Collection[str] = ()) -> tuple[Stub, ...]:
    """The stubs that belong under ``out``, sorted by module.

    Args:
        out: The folder that top-level packages stand in.
        collected: The modules.
        as_dict: Names of the contracts whose functions return several outputs in a dict.

    Raises:
        OSError: If a file that is there cannot be read.
    """
    known = [module.name for module in collected.modules]
    stubs = []
    for module in collected.modules:
        path = _path_of(out, module.name, known)
        stubs.append(Stub(path, render(module, as_dict), MARK, text_of(path), module))
    return tuple(stubs)


def _path_of(out: Path, module: str, known: Collection[str]) -> Path:
    folder = out.joinpath(*module.split("."))
    # A package is known by the modules in it: by other contracts, or because it stands here.
    if any(one.startswith(f"{module}.") for one in known) or (folder / "__init__.py").exists():
        return folder / "__init__.pyi"
    return folder.with_name(f"{folder.name}.pyi")
