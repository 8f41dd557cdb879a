"""From contract files to the functions of each module."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ...errors import SpecError, SpecProblem
from ...spec.files.read_contract import load_file
from ...spec.language.versions import parse_version
from ...spec.model import CallableSpec


@dataclass(frozen=True)
class StubFunction:
    """One function with the contract that its stub follows.

    Attributes:
        qualname: Its name in the module, one part for each class around it.
        spec: The newest contract.
        older: Versions of the same contract for this function that are not used.
    """

    qualname: tuple[str, ...]
    spec: CallableSpec
    older: tuple[str, ...] = ()


@dataclass(frozen=True)
class StubModule:
    """The functions of one module, sorted by name."""

    name: str
    functions: tuple[StubFunction, ...]


@dataclass(frozen=True)
class Collected:
    """What the contract files say.

    Attributes:
        modules: Sorted by name.
        without_function: Labels of the contracts that name no function, sorted.
    """

    modules: tuple[StubModule, ...]
    without_function: tuple[str, ...]


# The contracts for one function, by name and version.
_Candidates: TypeAlias = dict[tuple[str, str], CallableSpec]


def collect(files: Iterable[str]) -> Collected:
    """The functions that the contracts in ``files`` speak of, whatever the order of the files.

    Of several versions of one contract for a function the newest counts.

    Raises:
        SpecError: A contract is not valid, a version stands in two files, two contracts speak
            of one function, or a function has the name of a class. Holds all such problems.
    """
    problems: list[SpecProblem] = []
    functions: dict[str, _Candidates] = {}
    without_function: set[str] = set()
    for spec in _load_all(files, problems):
        if spec.function is None:
            without_function.add(spec.label)
            continue
        candidates = functions.setdefault(spec.function, {})
        twin = candidates.setdefault((spec.name, spec.version), spec)
        if twin is not spec:
            expected = f"{spec.label} in one file; {twin.where('version')} has it too"
            problems.append(_problem(spec, "version", expected, "it again"))
    chosen = {target: _newest(one, target, problems) for target, one in functions.items()}
    modules = _by_module(chosen, problems)
    if problems:
        raise SpecError("stubs", tuple(sorted(problems, key=str)))
    return Collected(modules, tuple(sorted(without_function)))


def _load_all(files: Iterable[str], problems: list[SpecProblem]) -> Iterator[CallableSpec]:
    # Sorted, so that a message about two files names them in one order; and each once, though
    # it may have been named along with its folder.
    once = {os.path.realpath(file): file for file in sorted(files, reverse=True)}
    for file in sorted(once.values()):
        try:
            yield load_file(file)
        except SpecError as error:
            problems.extend(error.problems)


def _newest(
    candidates: _Candidates, target: str, problems: list[SpecProblem]
) -> tuple[CallableSpec, tuple[str, ...]]:
    # The oldest first, so that the last is the newest; names decide between equal versions.
    specs = sorted(candidates.values(), key=lambda one: (parse_version(one.version), one.name))
    first, *others = specs
    for other in others:
        if other.name != first.name:
            expected = f"one contract for {target}; {first.label} at {first.where('function')} is"
            problems.append(_problem(other, "function", expected, f"{other.label} for it as well"))
            break
    return specs[-1], tuple(one.version for one in specs[:-1])


def _by_module(
    chosen: dict[str, tuple[CallableSpec, tuple[str, ...]]], problems: list[SpecProblem]
) -> tuple[StubModule, ...]:
    modules: dict[str, list[StubFunction]] = {}
    for target, (spec, older) in sorted(chosen.items()):
        module, _, qualname = target.partition(":")
        function = StubFunction(tuple(qualname.split(".")), spec, older)
        modules.setdefault(module, []).append(function)
    for functions in modules.values():
        functions.sort(key=lambda one: one.qualname)
        problems.extend(_functions_as_classes(functions))
    return tuple(StubModule(name, tuple(modules[name])) for name in sorted(modules))


def _functions_as_classes(functions: list[StubFunction]) -> Iterator[SpecProblem]:
    plain = {one.qualname: one for one in functions}
    for function in functions:
        for depth in range(1, len(function.qualname)):
            outer = plain.get(function.qualname[:depth])
            if outer is not None:
                name = ".".join(outer.qualname)
                expected = f"`{name}` to be a class; {outer.spec.where('function')} has it as"
                yield _problem(function.spec, "function", expected, "a function")


def _problem(spec: CallableSpec, path: str, expected: str, found: str) -> SpecProblem:
    return SpecProblem(path, expected, f"{found} [{spec.where(path)}]")
