"""The command ``jaxtorch``.

One file a subcommand, each with ``register(app)``; `app` lists them. A subcommand parses
arguments, calls one library function, prints, and returns an exit code: 0 fine, 1 findings,
2 wrong usage. With ``--json`` it prints one JSON document and nothing else. What a subcommand
needs beyond typer is imported when it runs, so that the others start at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

# Only what imports functions needs these.
_FRAMEWORKS = ("jax", "jaxlib", "numpy", "torch")


def main() -> None:
    """Run the command; without typer, say how to get it and exit with 2."""
    try:
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        print(
            f"jaxtorch: the command needs the package `{error.name}`, which is not installed. "
            'Run: pip install "jaxtorch-bridge[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    from .app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What a locale cannot print, such as an odd file name, must not end in a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="jaxtorch")
    except ModuleNotFoundError as error:
        if error.name not in _FRAMEWORKS:
            raise
        print(
            f"jaxtorch: this needs the package `{error.name}`, which is not installed. "
            "jaxtorch doctor says what is.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
