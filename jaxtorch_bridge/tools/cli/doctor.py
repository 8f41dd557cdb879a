"""``jaxtorch doctor``: whether this installation is sound."""

from __future__ import annotations

import typer

from .output import JsonFlag, finish, print_json

_COLOURS = {"fine": typer.colors.GREEN, "note": typer.colors.YELLOW, "problem": typer.colors.RED}


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("doctor")(doctor)


def doctor(as_json: JsonFlag = False) -> None:
    """Look at versions, devices, the native handler, CUDA libraries, memory pools and threads.

    Says what to do about each problem. Starts JAX and makes one call of torch through it.
    """
    from ..doctor.examine import examine

    checks = examine()
    problems = sum(check.state == "problem" for check in checks)
    if as_json:
        print_json({"problems": problems, "checks": [vars(check) for check in checks]})
    else:
        for check in checks:
            state = typer.style(f"{check.state:<8}", fg=_COLOURS[check.state])
            typer.echo(f"{state} {check.subject:<10} {check.text}")
            if check.remedy:
                typer.echo(f"{'':<20}-> {check.remedy}")
        typer.echo(f"{problems or 'no'} problem{'s' * (problems != 1)}")
    finish(bool(problems))
