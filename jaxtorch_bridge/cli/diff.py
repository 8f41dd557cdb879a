"""``jaxtorch diff``: what changed for callers, and whether the version numbers say so."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing

if TYPE_CHECKING:
    from ..spec.history import Comparison
    from ..spec.model import CallableSpec


class Gate(Enum):
    """What makes the exit code 1."""

    version = "version"
    breaking = "breaking"
    any = "any"


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("diff")(diff)


def diff(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="OLD and NEW: two files, two folders or two names such as attention@2.1. "
            "With --git: files and folders (default: the search path, or specs).",
            metavar="OLD NEW | [PATHS]...",
        ),
    ] = None,
    git: Annotated[
        str | None,
        typer.Option(
            "--git", metavar="REF", help="Compare with where this branch left REF, such as main."
        ),
    ] = None,
    fail_on: Annotated[
        Gate,
        typer.Option(
            help="Exit with 1 if a version does not say what changed (version), and also at "
            "breaking changes (breaking) or at every change (any)."
        ),
    ] = Gate.version,
    allow_removed: Annotated[
        bool, typer.Option("--allow-removed", help="A removed contract is no problem.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what changed for callers, and whether the version numbers say the same.

    Each change is breaking (a call that worked fails or gives something else), additive or
    neutral. Breaking changes need the next major version, additive ones the next minor, neutral
    ones the next patch; below 1.0.0 breaking ones need the next minor, others the next patch.
    Remarks (doc) need none.
    """
    with errors_reported(as_json=as_json):
        comparisons = _since(git, paths or []) if git is not None else _between(paths or [])
        if allow_removed:
            from dataclasses import replace

            comparisons = tuple(
                replace(one, problem=None) if one.new is None else one for one in comparisons
            )
        if as_json:
            print_json(_as_data(comparisons))
        else:
            _print(comparisons)
        finish(_fails(comparisons, fail_on))


def _between(paths: list[str]) -> tuple[Comparison, ...]:
    from ..spec.history import compare, compare_all
    from ..spec.load import load_spec
    from ..spec.registry import is_reference

    if len(paths) != 2:
        stop("diff takes two contracts, OLD and NEW, or --git REF. See jaxtorch diff --help.")
    existing([path for path in paths if os.path.exists(path) or not is_reference(path)])
    folders = [os.path.isdir(path) for path in paths]
    if folders[0] != folders[1]:
        stop("diff takes two files or two folders, not one of each.")
    if folders[0]:
        return compare_all(_load_all([paths[0]]), _load_all([paths[1]]))
    comparison = compare(load_spec(paths[0]), load_spec(paths[1]))
    return (comparison,) if comparison.changes or comparison.problem else ()


def _since(ref: str, paths: list[str]) -> tuple[Comparison, ...]:
    from ..spec.history import compare_all
    from ..spec.load import read_spec
    from .git import files_at, fork_point

    # Paths need not exist any more: what a branch removed counts, too.
    paths = paths or default_paths()
    commit = fork_point(ref)
    now = {os.path.normpath(spec_path): spec_path for spec_path in _files(paths)}
    raw_now = {path: _read(file) for path, file in now.items()}
    old, unchanged = [], []
    for path, raw in files_at(commit, paths):
        if raw_now.get(os.path.normpath(path)) == raw:
            # The same bytes on both sides need to be read only once.
            spec = read_spec(raw_now.pop(os.path.normpath(path)), path)
            unchanged.append(spec)
        else:
            spec = read_spec(raw, f"{commit[:10]}:{path}")
        old.append(spec)
    new = [read_spec(raw, now[path]) for path, raw in raw_now.items()]
    return compare_all(old, _no_duplicates([*unchanged, *new]))


def _files(paths: list[str]) -> list[str]:
    from ..spec.files import contract_files

    return list(contract_files(path for path in paths if os.path.exists(path)))


def _read(file: str) -> bytes:
    from ..spec.load import read_bytes

    return read_bytes(file)


def _load_all(paths: list[str]) -> list[CallableSpec]:
    from ..spec.load import load_file

    return _no_duplicates(load_file(file) for file in _files(paths))


def _no_duplicates(specs: Iterable[CallableSpec]) -> list[CallableSpec]:
    from ..errors import SpecError, SpecProblem

    seen: dict[str, CallableSpec] = {}
    for spec in specs:
        other = seen.setdefault(spec.label, spec)
        if other != spec:
            found = f"another at {other.where('name')}"
            problem = SpecProblem("", f"one content for {spec.label}", found, spec.where("name"))
            raise SpecError(spec.label, (problem,))
    return list(seen.values())


def _fails(comparisons: tuple[Comparison, ...], gate: Gate) -> bool:
    from ..spec.history import gravest

    if any(one.problem for one in comparisons):
        return True
    level = gravest(comparisons)
    return level != "none" if gate is Gate.any else gate is Gate.breaking and level == "breaking"


def _print(comparisons: tuple[Comparison, ...]) -> None:
    for one in comparisons:
        kind = "" if one.old and one.new else " (new)" if one.new else " (removed)"
        typer.secho(f"{one.label}{kind}", bold=True)
        for change in one.changes:
            typer.echo(f"  {_coloured(change.level)}  {_subject(change.path)}{change.text}")
            typer.echo(f"            {change.old} -> {change.new}")
        verdict = one.problem or "the version says so"
        typer.echo(f"  {'problem:' if one.problem else 'fine:'} {verdict}")
    if not comparisons:
        typer.echo("no changes")


def _subject(path: str) -> str:
    return f"{path}: " if path else ""


def _coloured(level: str) -> str:
    colour = {"breaking": typer.colors.RED, "additive": typer.colors.GREEN}.get(level)
    return typer.style(f"{level:<8}", fg=colour)


def _as_data(comparisons: tuple[Comparison, ...]) -> dict[str, Any]:
    from ..spec.history import gravest

    return {
        "level": gravest(comparisons),
        "problems": sum(one.problem is not None for one in comparisons),
        "contracts": [
            {
                "name": (one.new or one.old).name,  # type: ignore[union-attr]
                "old": one.old and one.old.version,
                "new": one.new and one.new.version,
                "problem": one.problem,
                "changes": [vars(change) for change in one.changes],
            }
            for one in comparisons
        ],
    }
