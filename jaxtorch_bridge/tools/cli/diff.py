"""``jaxtorch diff``: what changed for callers, and whether the version numbers say so."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop
from .sources import default_paths, existing

if TYPE_CHECKING:
    from ...errors import SpecProblem
    from ...spec.compare.history import Comparison
    from ...spec.model import CallableSpec


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
    unread = _Unread()
    with errors_reported(as_json=as_json):
        comparisons = _since(git, paths or [], unread) if git is not None else _between(paths or [])
        if allow_removed:
            from dataclasses import replace

            comparisons = tuple(
                replace(one, problem=None) if one.new is None else one for one in comparisons
            )
        if as_json:
            print_json(_as_data(comparisons, unread))
        else:
            _print(comparisons, unread)
        finish(bool(unread.now) or _fails(comparisons, fail_on))


@dataclass
class _Unread:
    """What is wrong with the files that could not be compared.

    Attributes:
        before: As the commit has them; what a branch repairs must not fail it.
        now: As they are.
    """

    before: list[SpecProblem] = field(default_factory=list)
    now: list[SpecProblem] = field(default_factory=list)


def _between(paths: list[str]) -> tuple[Comparison, ...]:
    from ...spec.compare.history import compare, compare_all
    from ...spec.files.load import load_spec
    from ...spec.files.registry import is_reference

    if len(paths) != 2:
        stop("diff takes two contracts, OLD and NEW, or --git REF. See jaxtorch diff --help.")
    existing([path for path in paths if os.path.exists(path) or not is_reference(path)])
    folders = [os.path.isdir(path) for path in paths]
    if folders[0] != folders[1]:
        stop("diff takes two files or two folders, not one of each.")
    if folders[0]:
        return compare_all(_load_all(paths[0]), _load_all(paths[1]))
    comparison = compare(load_spec(paths[0]), load_spec(paths[1]))
    return (comparison,) if comparison.changes or comparison.problem else ()


def _since(ref: str, paths: list[str], unread: _Unread) -> tuple[Comparison, ...]:
    from ...errors import SpecError
    from ...spec.compare.history import compare_all
    from ...spec.files.read_contract import read_spec
    from .git import files_at, fork_point

    # Paths need not exist any more: what a branch removed counts, too.
    paths = paths or default_paths()
    commit = fork_point(ref)
    now = {os.path.relpath(spec_path): spec_path for spec_path in _files(paths)}
    gone = [path for path in paths if not os.path.exists(path)]
    # By one spelling on both sides: git and a search path write the same file in their own ways.
    raw_old = {os.path.relpath(path): (path, raw) for path, raw in files_at(commit, paths)}
    old, new = {}, []
    # A path that never was is a mistake, and not a removed contract.
    for path in map(os.path.relpath, gone):
        if not any(one == path or one.startswith(path + os.sep) for one in raw_old):
            stop(f"`{path}` does not exist, nor did it in {commit[:10]}.")
    for path, file in now.items():
        try:
            raw_now = _read(file)
            new.append(read_spec(raw_now, file))
        except SpecError as error:
            unread.now += error.problems
            # What it was is not gone, and cannot be compared.
            raw_old.pop(path, None)
            continue
        if raw_old.get(path, ("", b""))[1] == raw_now:
            # The same bytes on both sides need to be read only once.
            old[path] = new[-1]
    for path, (shown, raw) in raw_old.items():
        try:
            old[path] = old.get(path) or read_spec(raw, f"{commit[:10]}:{shown}", old_words=True)
        except SpecError as error:
            unread.before += error.problems
    return compare_all(old.values(), _no_duplicates(new))


def _files(paths: list[str]) -> list[str]:
    from ...spec.files.contract_files import contract_files

    return list(contract_files(path for path in paths if os.path.exists(path)))


def _read(file: str) -> bytes:
    from ...spec.files.read_contract import read_bytes

    return read_bytes(file)


def _load_all(folder: str) -> list[CallableSpec]:
    from ...errors import SpecError
    from ...spec.files.read_contract import load_file

    specs: list[CallableSpec] = []
    problems: list[SpecProblem] = []
    for file in _files([folder]):
        try:
            specs.append(load_file(file))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(folder, tuple(problems))
    return _no_duplicates(specs)


def _no_duplicates(specs: Iterable[CallableSpec]) -> list[CallableSpec]:
    from ...errors import SpecError, SpecProblem

    seen: dict[str, CallableSpec] = {}
    for spec in specs:
        other = seen.setdefault(spec.label, spec)
        if other != spec:
            found = f"another at {other.where('name')}"
            problem = SpecProblem("", f"one content for {spec.label}", found, spec.where("name"))
            raise SpecError(spec.label, (problem,))
    return list(seen.values())


def _fails(comparisons: tuple[Comparison, ...], gate: Gate) -> bool:
    from ...spec.compare.history import gravest

    if any(one.problem for one in comparisons):
        return True
    level = gravest(comparisons)
    return level != "none" if gate is Gate.any else gate is Gate.breaking and level == "breaking"


def _print(comparisons: tuple[Comparison, ...], unread: _Unread) -> None:
    for problem in unread.now:
        typer.echo(f"invalid: {problem}")
    for problem in unread.before:
        typer.echo(f"not compared with, for it is invalid: {problem}")
    for one in comparisons:
        kind = "" if one.old and one.new else " (new)" if one.new else " (removed)"
        typer.secho(f"{one.label}{kind}", bold=True)
        for change in one.changes:
            typer.echo(f"  {_coloured(change.level)}  {_subject(change.path)}{change.text}")
            typer.echo(f"            {change.old} -> {change.new}")
        verdict = one.problem or "the version says so"
        typer.echo(f"  {'problem:' if one.problem else 'fine:'} {verdict}")
    if not comparisons and not unread.now:
        typer.echo("no changes")


def _subject(path: str) -> str:
    return f"{path}: " if path else ""


def _coloured(level: str) -> str:
    colour = {"breaking": typer.colors.RED, "additive": typer.colors.GREEN}.get(level)
    return typer.style(f"{level:<8}", fg=colour)


def _as_data(comparisons: tuple[Comparison, ...], unread: _Unread) -> dict[str, Any]:
    from ...spec.compare.history import gravest

    return {
        "level": gravest(comparisons),
        "problems": sum(one.problem is not None for one in comparisons) + len(unread.now),
        "invalid": [vars(one) for one in unread.now],
        "invalid_before": [vars(one) for one in unread.before],
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
