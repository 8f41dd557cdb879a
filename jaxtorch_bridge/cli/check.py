"""``jaxtorch check``: whether contract files are valid."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing

if TYPE_CHECKING:
    from ..errors import SpecProblem


class Format(Enum):
    """How problems are printed."""

    text = "text"
    github = "github"


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("check")(check)


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders (default: the search path, or specs)."),
    ] = None,
    syntax: Annotated[
        bool,
        typer.Option("--syntax", help="Check the files alone, without importing the functions."),
    ] = False,
    output: Annotated[
        Format, typer.Option("--format", help="github: annotations for GitHub's CI.")
    ] = Format.text,
    as_json: JsonFlag = False,
) -> None:
    """Check contract files; say every problem with file, line and column.

    Only --syntax exists yet: functions are not compared with their contracts.
    """
    if not syntax:
        stop("check needs --syntax; functions cannot be compared with their contracts yet.")
    if as_json and output is Format.github:
        stop("--json and --format github exclude each other.")
    from ..spec.validate import check_files

    with errors_reported(as_json=as_json):
        count, problems = check_files(existing(paths) if paths else default_paths())
    if as_json:
        print_json({"files": count, "problems": [vars(one) for one in problems]})
    else:
        for problem in problems:
            typer.echo(_annotation(problem) if output is Format.github else str(problem))
        typer.echo(_summary(count, len(problems)), err=output is Format.github)
    finish(bool(problems))


def _summary(files: int, problems: int) -> str:
    return f"{files} file{'s' * (files != 1)}, {problems or 'no'} problem{'s' * (problems != 1)}"


def _annotation(problem: SpecProblem) -> str:
    where = [f"file={_escaped(problem.file or '', of_property=True)}"]
    if problem.line is not None:
        where += [f"line={problem.line}", f"col={problem.column}"]
    subject = f"`{problem.path}`: " if problem.path else ""
    text = f"{subject}expected {problem.expected}; got {problem.found}"
    return f"::error {','.join(where)}::{_escaped(text)}"


def _escaped(text: str, *, of_property: bool = False) -> str:
    """``text`` as workflow commands want it."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if of_property else text
