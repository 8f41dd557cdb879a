"""Where the page belongs on disk."""

from __future__ import annotations

from pathlib import Path

from ...spec.files.generated_files import Generated, text_of
from .page import MARK


def page_in(out: Path, text: str) -> Generated:
    """The page that belongs under ``out``.

    Raises:
        OSError: If a file that is there cannot be read.
    """
    path = out / "index.html"
    return Generated(path, text, MARK, text_of(path))
