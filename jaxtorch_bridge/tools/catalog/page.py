"""The page as HTML: one file with its style and script in it, so that it works anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from .view import ContractView

# The second line of the page: what is not ours is never overwritten.
MARK = "<!-- Made by `jaxtorch catalog` from contracts. Change those and run it again. -->"

# Control characters but tabs and line ends, which browsers drop, and surrogates.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_TEMPLATES = Path(__file__).parent / "templates"


def render(contracts: Sequence[ContractView], title: str) -> str:
    """The page: the same text for the same contracts, with ``\\n`` line ends.

    Everything that comes from contracts is escaped by the template engine. A browser runs no
    script but the page's own, and loads nothing: the page's content security policy says so.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        # Runs on what a template prints, before it is escaped.
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["ticked"] = _ticked
    style, script = _own("catalog.css"), _own("catalog.js")
    return environment.get_template("page.html.jinja").render(
        contracts=contracts,
        title=title,
        mark=Markup(MARK),
        style=style,
        script=script,
        policy=_policy(style, script),
    )


def _visible(value: Any) -> Any:
    """Text in which control characters and halves of characters are written out."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], value)
    return value


def _ticked(text: str) -> Markup:
    """``text`` escaped, and what stands in backticks as code."""
    parts = [escape(_visible(part)) for part in text.split("`")]
    # An odd number of backticks: they enclose nothing, and stand for themselves.
    if len(parts) % 2 == 0:
        return escape(_visible(text))
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if i % 2 else part for i, part in enumerate(parts))


def _own(name: str) -> Markup:
    # Our own files alone may go into the page unescaped.
    return Markup(_TEMPLATES.joinpath(name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(raw).decode('ascii')}"
