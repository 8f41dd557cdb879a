"""Many contract files checked at once."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import SpecError, SpecProblem
from ..model import CallableSpec
from .contract_files import contract_files
from .read_contract import load_file


def check_files(paths: Iterable[str]) -> tuple[int, tuple[SpecProblem, ...]]:
    """The number of contract files below ``paths``, and everything that is wrong with them.

    A version that two files hold with different content is a problem, too.

    Raises:
        SpecError: If one of ``paths`` does not exist.
    """
    count, _, problems = read_all(paths)
    return count, problems


def read_all(
    paths: Iterable[str],
) -> tuple[int, tuple[CallableSpec, ...], tuple[SpecProblem, ...]]:
    """The number of contract files below ``paths``, the valid contracts, and all problems.

    A version that two files hold with the same content comes once.

    Raises:
        SpecError: If one of ``paths`` does not exist.
    """
    files = list(dict.fromkeys(contract_files(paths)))
    problems: list[SpecProblem] = []
    seen: dict[str, tuple[str, CallableSpec]] = {}
    for file in files:
        try:
            spec = load_file(file)
        except SpecError as error:
            problems += error.problems
            continue
        first, other = seen.setdefault(spec.label, (file, spec))
        if other != spec:
            place, line, column = spec.where("version").rsplit(":", 2)
            expected = f"one content for {spec.label}"
            found = f"another in `{first}`"
            problem = SpecProblem("version", expected, found, place, int(line), int(column))
            problems.append(problem)
    return len(files), tuple(spec for _, spec in seen.values()), tuple(problems)
