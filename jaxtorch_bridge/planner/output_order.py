"""Which output of a contract each flat result of a torch function is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from ..errors import SpecMismatchError

Names = tuple[str, ...]
Paths = Sequence[tuple[str | int, ...]]

# How results are told to be a contract's outputs. names: by their own. places: as a tuple of the
# outputs. first: as a tuple of named ones and others behind them. only: as the one output itself.
# behind: by one of these, with counts behind them. order: they have no names.
Reading = Literal["names", "places", "first", "only", "behind", "order"]


def contract_order(
    label: str, declared: Sequence[Names], paths: Paths, counts: Collection[Names] = ()
) -> list[int] | None:
    """For each output of the contract, the flat result that it is; None if counts differ.

    JAX sorts the keys of a dict, a contract does not: names decide where there are names. Only
    results that have none at all go by their order.

    Args:
        label: The callable's name, for messages.
        declared: Paths of the contract's outputs.
        paths: Where each flat result stands in what torch returned.
        counts: Which of the outputs are counts, which may stand behind what torch returned.

    Raises:
        SpecMismatchError: The results have other names.
    """
    found = order_and_reading(label, declared, paths, counts)
    return None if found is None else found[0]


def order_and_reading(
    label: str, declared: Sequence[Names], paths: Paths, counts: Collection[Names] = ()
) -> tuple[list[int], Reading] | None:
    """`contract_order`, and how it was found."""
    if len(declared) != len(paths):
        return None
    # Names as they are go before readings by position.
    for reading, renamed in _readings(declared, paths):
        by_path = {path: index for index, path in enumerate(renamed)}
        if set(by_path) == set(declared):
            return [by_path[path] for path in declared], reading
    own = [path for path in declared if path not in counts]
    if len(own) < len(declared) and _are_behind(paths, len(own)):
        inner = contract_order(label, own, [path[1:] for path in paths[: len(own)]])
        assert inner is not None  # there are as many
        places = iter(inner)
        last = iter(range(len(own), len(paths)))
        return [next(last if path in counts else places) for path in declared], "behind"
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
    return list(range(len(paths))), "order"


def _are_behind(paths: Paths, own: int) -> bool:
    """Whether the first place of a tuple is what torch returned, and each other one a count."""
    behind = [path[0] for path in paths[own:] if len(path) == 1]
    return all(path and path[0] == 0 for path in paths[:own]) and behind == list(
        range(1, 1 + len(paths) - own)
    )


def _readings(declared: Sequence[Names], paths: Paths) -> Iterator[tuple[Reading, list[Names]]]:
    yield "names", [tuple(map(str, path)) for path in paths]
    outputs = list(dict.fromkeys(path[0] for path in declared))
    places = list(dict.fromkeys(path[0] for path in paths if path))
    positions = all(path and isinstance(path[0], int) for path in paths)
    if positions and len(places) == len(outputs):
        # Only the outer places: JAX sorts the keys of a dict in a tuple, so within it names decide.
        name_of = dict(zip(places, outputs, strict=True))
        yield "places", [(name_of[path[0]], *map(str, path[1:])) for path in paths]
    named = [path for path in paths if len(path) > 1 and path[0] == 0]
    if positions and named and len(named) + len(places) == len(paths) + 1:
        # Named results and others behind them.
        first = [tuple(map(str, path[1:])) for path in named]
        rest = (name for name in outputs if not any(path[0] == name for path in first))
        yield "first", first + [(name,) for name, _ in zip(rest, places[1:], strict=False)]
    if len(outputs) == 1:
        yield "only", [(outputs[0], *map(str, path)) for path in paths]
