"""Which tests run: all of them, each value of each parameter once, or a part from everywhere."""

from __future__ import annotations

import zlib
from collections import defaultdict

import pytest

# Whether a part of the tests will do; `conftest` says.
PARTIAL = False


def examples(count: int) -> int:
    """How many random cases to try: of so many a third, where a part of the tests will do."""
    return count // 3 if PARTIAL else count


def each_value(items: list[pytest.Item]) -> list[pytest.Item]:
    """Leave out combinations of values each of which stands in another test of the same function.

    A function with three parameters of two, three and four values is four tests or a few more in
    place of twenty-four. Of what is marked as a `table` one in so many cases stays.
    """
    seen: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    chosen = set()
    for item in sorted(items, key=_shuffled):
        table = item.get_closest_marker("table")
        if table and _shuffled(item) % table.args[0]:
            continue
        callspec = getattr(item, "callspec", None)
        parameters = callspec.params.items() if callspec else ()
        # Combinations of one `parametrize` with another share the objects.
        values = {(name, id(value)) for name, value in parameters}
        of_function = seen[item.nodeid.partition("[")[0]]
        if values and values <= of_function:
            continue
        of_function |= values
        chosen.add(item)
    return [item for item in items if item in chosen]


def each_nth(items: list[pytest.Item], n: int) -> list[pytest.Item]:
    """A part, by names, so that other tests that come or go do not change the choice."""
    return [item for item in items if _shuffled(item) % n == 0]


def keep(config: pytest.Config, items: list[pytest.Item], chosen: list[pytest.Item]) -> None:
    """Have pytest run these alone, and say how many it does not."""
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


def _shuffled(item: pytest.Item) -> int:
    return zlib.crc32(item.nodeid.encode())
