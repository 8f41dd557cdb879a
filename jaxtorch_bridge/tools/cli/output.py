"""What the subcommands share: exit codes, JSON, and errors that a person can act on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

FINE = 0
FINDINGS = 1
USAGE = 2

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def print_json(data: Any) -> None:
    """Print ``data`` as JSON on standard output; in ASCII, which every locale can print.

    Numbers that JSON does not have are strings, as YAML writes them: ``".nan"``, ``"-.inf"``.
    """
    typer.echo(json.dumps(_finite(data), indent=2, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return ".nan" if math.isnan(data) else ".inf" if data > 0 else "-.inf"
    return data


def stop(message: str) -> NoReturn:
    """Say on standard error what is wrong with the call, and exit with 2."""
    typer.echo(f"jaxtorch: {message}", err=True)
    raise typer.Exit(USAGE)


def finish(findings: bool) -> NoReturn:
    """Exit with 1 if there are findings, else with 0."""
    raise typer.Exit(FINDINGS if findings else FINE)


@contextmanager
def errors_reported(*, as_json: bool) -> Iterator[None]:
    """Print errors of this library instead of tracebacks, and exit with 1.

    With ``as_json`` an invalid contract becomes ``{"error": ..., "problems": [...]}``.
    """
    from ...errors import BridgeError, SpecError

    try:
        yield
    except BridgeError as error:
        if as_json:
            problems = error.problems if isinstance(error, SpecError) else ()
            print_json({"error": str(error), "problems": [vars(one) for one in problems]})
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(FINDINGS) from None
