"""``jaxtorch stubs``: typed stubs for the callers of torch functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing

if TYPE_CHECKING:
    from ..stubs.collect import Collected
    from ..stubs.files import Stub

_REMEDIES = {
    "foreign": "not made by `jaxtorch stubs`; move it away to have one",
    "missing": "missing; run `jaxtorch stubs` without --check",
    "out of date": "out of date; run `jaxtorch stubs` without --check",
}


def register(app: typer.Typer) -> None:
    """Add the subcommand to ``app``."""
    app.command("stubs")(stubs)


def stubs(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder that top-level packages stand in.")
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders (default: the search path, or specs)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; show what is out of date.")
    ] = False,
    dict_outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--dict-outputs",
            metavar="CONTRACT",
            help="A contract whose function returns its outputs in a dict. May be repeated; "
            "`*` stands for all.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write typed stubs (.pyi) for the callers of the functions that contracts name."""
    from ...spec.files.contract_files import contract_files
    from ..stubs.collect import collect
    from ..stubs.files import stubs_in

    with errors_reported(as_json=as_json):
        try:
            given = existing(paths) if paths else default_paths()
            collected = collect(contract_files(given))
            if out.exists() and not out.is_dir():
                stop(f"-o {out}: expected a folder; got a file")
            found = stubs_in(out, collected, _named(dict_outputs or [], collected))
            written = [] if check else _write(found)
        except OSError as error:
            stop(str(error))
    if as_json:
        print_json(_data(found, written, collected))
    else:
        _show(found, written, collected, out, check)
    finish(any(stub.state != "up to date" and stub not in written for stub in found))


def _named(wanted: list[str], collected: Collected) -> frozenset[str]:
    known = {one.spec.name for module in collected.modules for one in module.functions}
    if "*" in wanted:
        return frozenset(known)
    from ...spec.language.wording import did_you_mean, quote

    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            stop(f"--dict-outputs: expected the name of a contract{hint}; got {quote(name)}")
    return frozenset(wanted)


def _write(found: tuple[Stub, ...]) -> list[Stub]:
    # A file of somebody else is a finding: then nothing is written, so that no set is mixed.
    if any(stub.state == "foreign" for stub in found):
        return []
    changed = [stub for stub in found if stub.state != "up to date"]
    for stub in changed:
        stub.write()
    return changed


def _data(found: tuple[Stub, ...], written: list[Stub], collected: Collected) -> dict[str, Any]:
    return {
        "stubs": [
            {
                "path": stub.path.as_posix(),
                "module": stub.module.name,
                "contracts": [one.spec.label for one in stub.module.functions],
                "state": "written" if stub in written else stub.state,
                "diff": "" if stub in written else stub.diff(),
            }
            for stub in found
        ],
        "without_function": list(collected.without_function),
    }


def _show(
    found: tuple[Stub, ...], written: list[Stub], collected: Collected, out: Path, check: bool
) -> None:
    for stub in found:
        if stub in written:
            typer.echo(f"{stub.path}: written")
        elif stub.state != "up to date":
            if check or stub.state == "foreign":
                typer.echo(f"{stub.path}: {_REMEDIES[stub.state]}")
            if check and stub.state != "foreign":
                typer.echo(stub.diff(), nl=False)
    for label in collected.without_function:
        typer.echo(f"{label}: names no function, so it has no stub")
    fine = sum(stub.state == "up to date" for stub in found)
    count = f"{len(found)} stub{'s' * (len(found) != 1)}"
    typer.echo(f"{count} for {out}: {fine} up to date, {len(written)} written")
