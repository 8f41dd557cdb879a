"""Stubs on disk: where each belongs, whether it is up to date, and writing it whole or not."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..spec.atomic import write_whole
from .collect import Collected, StubModule
from .render import MARK, render

State = Literal["up to date", "missing", "out of date", "foreign"]


@dataclass(frozen=True)
class Stub:
    """One stub, next to what stands in its place now.

    Attributes:
        module: The module it is for.
        path: Its file.
        text: What it should say.
        found: What the file says, or None if there is none.
    """

    module: StubModule
    path: Path
    text: str
    found: str | None

    @property
    def state(self) -> State:
        """How the file compares; ``foreign`` is one that was not made here."""
        if self.found is None:
            return "missing"
        if self.found == self.text:
            return "up to date"
        return "out of date" if self.found.startswith(MARK) else "foreign"

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
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def write(self) -> None:
        """Put the text in place; the file has all of it or is as before.

        Raises:
            OSError: If that cannot be done.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(str(self.path), self.text)


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
        stubs.append(Stub(module, path, render(module, as_dict), _text_of(path)))
    return tuple(stubs)


def _path_of(out: Path, module: str, known: Collection[str]) -> Path:
    folder = out.joinpath(*module.split("."))
    # A package is known by the modules in it: by other contracts, or because it stands here.
    if any(one.startswith(f"{module}.") for one in known) or (folder / "__init__.py").exists():
        return folder / "__init__.pyi"
    return folder.with_name(f"{folder.name}.pyi")


def _text_of(path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    # A version control system may have changed line ends; that is no difference.
    return content.decode("utf-8", "replace").replace("\r\n", "\n")
