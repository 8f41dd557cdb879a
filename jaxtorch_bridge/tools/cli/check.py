"""``jaxtorch check``: whether contract files are valid, and their functions what they say."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing

if TYPE_CHECKING:
    from ...errors import SpecProblem
    from ..check.compare_function import Proof


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
    numeric: Annotated[
        bool,
        typer.Option(
            "--numeric",
            help="Run the functions, too, on made-up arrays: values, gradients, vmap, shards.",
        ),
    ] = False,
    output: Annotated[
        Format, typer.Option("--format", help="github: annotations for GitHub's CI.")
    ] = Format.text,
    as_json: JsonFlag = False,
) -> None:
    """Check contract files, and compare each contract with the function that it names.

    Imports the modules named under `function` and evaluates the functions on fakes, in calls
    that differ in every dimension, static choice and optional input. Says every problem with
    file, line and column, and what JAX will do with each function.
    """
    if as_json and output is Format.github:
        stop("--json and --format github exclude each other.")
    if syntax and numeric:
        stop("--syntax and --numeric exclude each other.")
    with errors_reported(as_json=as_json):
        given = existing(paths) if paths else default_paths()
        if syntax:
            from ...spec.files.read_all_files import check_files

            count, problems = check_files(given)
            proofs: tuple[Proof, ...] = ()
            data: dict[str, Any] = {}
        else:
            from ..check.check_files import check_contracts

            checked = check_contracts(given, numeric=numeric)
            count, problems, proofs = checked.files, checked.all_problems, checked.proofs
            data = {
                "contracts": [_as_data(proof) for proof in proofs],
                "without_function": list(checked.without_function),
            }
    if as_json:
        print_json({"files": count, "problems": [vars(one) for one in problems], **data})
    else:
        for problem in problems:
            typer.echo(_annotation(problem) if output is Format.github else str(problem))
        for proof in proofs:
            # With --format github standard output is for the annotations alone.
            _show(proof, err=output is Format.github)
        for label in data.get("without_function", ()):
            typer.echo(f"{label}: names no function", err=output is Format.github)
        typer.echo(_summary(count, len(problems)), err=output is Format.github)
    finish(bool(problems))


def _show(proof: Proof, *, err: bool) -> None:
    name, runs = proof.spec.label, f", {proof.runs} for real" if proof.runs else ""
    count = len(proof.problems)
    verdict = f"{count} problem{'s' * (count != 1)}" if count else "agrees"
    typer.echo(f"{name}: {verdict} ({proof.calls} calls{runs}) {proof.spec.function}", err=err)
    for subject, words in proof.remarks:
        typer.echo(f"  {subject:<12} {words}", err=err)


def _as_data(proof: Proof) -> dict[str, Any]:
    return {
        "name": proof.spec.name,
        "version": proof.spec.version,
        "function": proof.spec.function,
        "calls": proof.calls,
        "runs": proof.runs,
        "evaluated_abstractly": not proof.unseen,
        "problems": [vars(one) for one in proof.problems],
        "remarks": [{"subject": subject, "words": words} for subject, words in proof.remarks],
    }


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
