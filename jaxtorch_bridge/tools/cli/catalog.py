"""``jaxtorch catalog``: one static page of all contracts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing

if TYPE_CHECKING:
    from ...spec.files.generated_files import Generated
    from ..catalog.collect import Versions
    from ..catalog.plans import PlanView
    from ..catalog.view import ContractView

_REMEDIES = {
    "foreign": "not made by `jaxtorch catalog`; move it away to have one",
    "missing": "missing; run `jaxtorch catalog` without --check",
    "out of date": "out of date; run `jaxtorch catalog` without --check",
}


def register(app: typer.Typer) -> None:
    """Add the subcommand to ``app``."""
    app.command("catalog")(catalog)


def catalog(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the page, index.html.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders (default: the search path, or specs)."),
    ] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "Contracts",
    plans: Annotated[
        bool,
        typer.Option("--plans", help="Import the functions, and show what JAX will do with them."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if the page differs.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make one page of all contracts, to search and to compare versions.

    The page needs no server and no network: open OUT/index.html in a browser.
    """
    try:
        from ..catalog.page import render
    except ModuleNotFoundError as error:
        stop(
            f"catalog needs the package {error.name}, which is not installed. Run: "
            'pip install "jaxtorch-bridge[cli]"'
        )
    from ..catalog.collect import collect
    from ..catalog.files import page_in
    from ..catalog.view import views_of

    with errors_reported(as_json=as_json):
        found = collect(existing(paths) if paths else default_paths())
        contracts = views_of(found, _plans(found) if plans else None)
    if out.exists() and not out.is_dir():
        stop(f"-o {out}: expected a folder; got a file")
    try:
        page = page_in(out, render(contracts, title))
        state: str = page.state
        if not check and state in ("missing", "out of date"):
            page.write()
            state = "written"
    except OSError as error:
        stop(str(error))
    if as_json:
        print_json(_data(page, state, contracts))
    else:
        _show(page, state, contracts)
    finish(state in _REMEDIES)


def _plans(contracts: Mapping[str, Versions]) -> dict[str, PlanView]:
    from ..catalog.plans import plans_of

    return plans_of(contracts)


def _data(page: Generated, state: str, contracts: tuple[ContractView, ...]) -> dict[str, Any]:
    return {
        "page": page.path.as_posix(),
        "state": state,
        "contracts": [
            {
                "name": one.name,
                "versions": [version.version for version in (one.newest, *one.older)],
                "function": one.newest.function,
                "problems": _problems(one),
                "plan": None if one.newest.plan is None else vars(one.newest.plan),
            }
            for one in contracts
        ],
    }


def _problems(contract: ContractView) -> list[str]:
    """Steps whose version number does not say what changed, and what the function does else."""
    steps = contract.comparison.steps if contract.comparison else ()
    plan = contract.newest.plan
    said = [f"{step.label}: {step.problem}" for step in steps if step.problem]
    return [*said, *(plan.problems if plan else ())]


def _show(page: Generated, state: str, contracts: tuple[ContractView, ...]) -> None:
    versions = sum(1 + len(one.older) for one in contracts)
    for contract in contracts:
        for problem in _problems(contract):
            typer.echo(f"note: {problem}")
    typer.echo(f"{page.path}: {_REMEDIES.get(state, state)}")
    typer.echo(f"{_count(len(contracts), 'contract')}, {_count(versions, 'version')}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
