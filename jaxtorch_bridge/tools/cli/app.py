"""The typer application, with every subcommand registered."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from ...version import __version__

# Modules of this package with a function `register(app)`, in the order of `--help`.
SUBCOMMANDS: tuple[str, ...] = (
    "bench",
    "catalog",
    "check",
    "diff",
    "doctor",
    "infer",
    "migrate",
    "plan",
    "schema",
    "stubs",
)

app = typer.Typer(
    no_args_is_help=True,
    # Tracebacks as Python prints them: they reach bug reports whole.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxtorch {__version__}")
        raise typer.Exit


@app.callback()
def _jaxtorch(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Contracts of torch functions that JAX programs call.

    Exit codes: 0 fine, 1 findings, 2 wrong usage.
    """


for _name in SUBCOMMANDS:
    importlib.import_module(f".{_name}", __package__).register(app)
