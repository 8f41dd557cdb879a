"""``jaxtorch migrate``: contract files of an older format or with old words, rewritten."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("migrate")(migrate)


def migrate(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders (default: the search path, or specs)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if a file is older.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Rewrite contract files of an older format, or with old words; comments stay.

    Each file is replaced as a whole, or left as it is.
    """
    from ...errors import SpecError, SpecProblem
    from ...spec.files.contract_files import contract_files
    from ...spec.files.migrate import rewrite

    older: dict[str, list[tuple[str, str]]] = {}
    problems: list[SpecProblem] = []
    count = 0
    with errors_reported(as_json=as_json):
        for file in contract_files(existing(paths) if paths else default_paths()):
            count += 1
            try:
                changes = rewrite(file, write=not check)
            except ModuleNotFoundError:
                stop(
                    "migrate needs the package ruamel.yaml, which is not installed. Run: "
                    'pip install "jaxtorch-bridge[cli]"'
                )
            except SpecError as error:
                # The others are rewritten all the same, and those that were are to be told.
                problems += error.problems
                continue
            except OSError as error:
                found = error.strerror or str(error)
                problems.append(SpecProblem("", "a file that can be written", found, file))
                continue
            if changes:
                older[file] = changes
    told = [(file, *change) for file, changes in older.items() for change in changes]
    if as_json:
        names = [{"file": file, "from": before, "to": after} for file, before, after in told]
        wrong = [vars(one) for one in problems]
        print_json({"files": count, "written": not check, "migrated": names, "problems": wrong})
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
        for file, before, after in told:
            typer.echo(f"{file}: {before} {'is older than' if check else '->'} {after}")
        typer.echo(f"{count} file{'s' * (count != 1)}, {len(older) or 'none'} of an older format")
    finish(bool(problems) or (check and bool(older)))
