"""Which output of a contract each flat result of a torch function is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import SpecMismatchError

Names = tuple[str, ...]


def contract_order(
    label: str, declared: Sequence[Names], paths: Sequence[tuple[str | int, ...]]
) -> list[int] | None:
    """For each output of the contract, the flat result that it is; None if counts differ.

    JAX sorts the keys of a dict, a contract does not: names decide where there are names. Only
    results that have none at all go by their order.

    Args:
        label: The callable's name, for messages.
        declared: Paths of the contract's outputs.
        paths: Where each flat result stands in what torch returned.

    Raises:
        SpecMismatchError: The results have other names.
    """
    if len(declared) != len(paths):
        return None
    # Names as they are go before readings by position.
    for renamed in _readings(declared, paths):
        by_path = {path: index for index, path in enumerate(renamed)}
        if set(by_path) == set(declared):
            return [by_path[path] for path in declared]
    if any(isinstance(part, str) for path in paths for part in path):
        expected = f"the names {', '.join('.'.join(path) for path in declared)}"
        found = f"torch returned {', '.join('.'.join(map(str, path)) for path in paths)}"
        raise SpecMismatchError(
            f"{label}, outputs: expected {expected}; {found}. Rename one side.",
            callable_name=label,
            argument="outputs",
            path="outputs",
            expected=expected,
            found=found,
        )
    return list(range(len(paths)))


def _readings(
    declared: Sequence[Names], paths: Sequence[tuple[str | int, ...]]
) -> Iterator[list[Names]]:
    """The paths as they are; as a tuple of the outputs or of named ones; as the only one itself."""
    yield [tuple(map(str, path)) for path in paths]
    outputs = list(dict.fromkeys(path[0] for path in declared))
    places = list(dict.fromkeys(path[0] for path in paths if path))
    positions = all(path and isinstance(path[0], int) for path in paths)
    if positions and len(places) == len(outputs):
        # Only the outer places: JAX sorts the keys of a dict in a tuple, so within it names decide.
        name_of = dict(zip(places, outputs, strict=True))
        yield [(name_of[path[0]], *map(str, path[1:])) for path in paths]
    named = [path for path in paths if len(path) > 1 and path[0] == 0]
    if positions and named and len(named) + len(places) == len(paths) + 1:
        # Named results and others behind them.
        first = [tuple(map(str, path[1:])) for path in named]
        rest = (name for name in outputs if not any(path[0] == name for path in first))
        yield first + [(name,) for name, _ in zip(rest, places[1:], strict=False)]
    if len(outputs) == 1:
        yield [(outputs[0], *map(str, path)) for path in paths]
