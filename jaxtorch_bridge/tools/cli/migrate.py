"""``jaxtorch migrate``: contract files of an older format, rewritten."""

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
    """Rewrite contract files of an older format in the current one; comments stay.

    Each file is replaced as a whole, or left as it is.
    """
    from ...errors import SpecError, SpecProblem
    from ...spec.files.contract_files import contract_files
    from ...spec.files.format_versions import CURRENT_ID
    from ...spec.files.migrate import rewrite

    older: list[tuple[str, str]] = []
    problems: list[SpecProblem] = []
    count = 0
    with errors_reported(as_json=as_json):
        for file in contract_files(existing(paths) if paths else default_paths()):
            count += 1
            try:
                before = rewrite(file, write=not check)
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
            if before is not None:
                older.append((file, before))
    if as_json:
        names = [{"file": file, "from": before, "to": CURRENT_ID} for file, before in older]
        told = [vars(one) for one in problems]
        print_json({"files": count, "written": not check, "migrated": names, "problems": told})
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
        for file, before in older:
            typer.echo(f"{file}: {before} {'is older than' if check else '->'} {CURRENT_ID}")
        typer.echo(f"{count} file{'s' * (count != 1)}, {len(older) or 'none'} of an older format")
    finish(bool(problems) or (check and bool(older)))
