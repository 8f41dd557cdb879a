"""The code blocks of README.md and docs/ run, and print what the pages say they print.

A page is one session: its ```python blocks run in order and share their names. A block with a
title is written to a file of that name first. A ```text block right after a ```python block is
what that block prints; `...` stands for anything, and line breaks count as spaces.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import itertools
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import jaxtorch_bridge

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
MATCHING = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str
    line: int
    start: int
    end: int


def blocks_of(page: str) -> Iterator[Block]:
    for found in FENCE.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        yield Block(found[1], found[2], found[3], line, found.start(), found.end())


def run(block: Block, path: Path, names: dict[str, object]) -> str:
    """What the block prints. Tracebacks show the lines of the page."""
    code = compile("\n" * block.line + block.text, str(path), "exec", dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def expected_after(block: Block, following: Block | None, page: str) -> str | None:
    """The text block that comes next with nothing in between, or None."""
    if following is None or following.language != "text":
        return None
    return following.text if not page[block.end : following.start].strip() else None


@pytest.mark.parametrize("path", PAGES, ids=[page.stem for page in PAGES])
def test_code_blocks_run_and_print_what_the_page_says(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look names up
    page = path.read_text(encoding="utf-8")
    blocks = list(blocks_of(page))
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        if block.title is not None:
            Path(block.title).write_text(block.text)
        if block.language != "python":
            continue
        printed = run(block, path, module.__dict__)
        expected = expected_after(block, following, page)
        where = f"{path.relative_to(ROOT)}:{block.line}"
        if expected is not None:
            same = doctest.OutputChecker().check_output(expected, printed, MATCHING)
            assert same, f"{where} printed\n{printed}\ninstead of\n{expected}"
        else:
            assert not printed, f"{where} prints, but no text block follows:\n{printed}"


@pytest.mark.parametrize("path", PAGES, ids=[page.stem for page in PAGES])
def test_relative_links_lead_to_files(path):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_python_files_that_architecture_names_are_there():
    files = {f"/{path.relative_to(ROOT)}" for path in (ROOT / "jaxtorch_bridge").rglob("*.py")}
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    # Some by the end of their path, where the sentence has named the folder.
    assert [name for name in named if not any(one.endswith(f"/{name}") for one in files)] == []


def test_every_error_class_is_documented():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    names = [name for name in jaxtorch_bridge.__all__ if name.endswith(("Error", "Warning"))]
    assert names
    assert [name for name in names if f"`{name}`" not in page] == []
