"""`make test` leaves no test function out, nor a value of a parameter."""

from types import SimpleNamespace

from choosing import each_nth, each_value


class Item:
    """What is asked of pytest's."""

    def __init__(self, name, table=None, **parameters):
        values = f"[{'-'.join(map(str, parameters.values()))}]" if parameters else ""
        self.nodeid = f"tests/test_it.py::{name}{values}"
        self.parameters = parameters
        self.table = table
        if parameters:
            self.callspec = SimpleNamespace(params=parameters)

    def get_closest_marker(self, name):
        assert name == "table"
        return SimpleNamespace(args=(self.table,)) if self.table else None


def combined(name, table=None, **parameters):
    """As pytest makes them of several `parametrize`: every combination, of shared values."""
    combinations = [{}]
    for parameter, values in parameters.items():
        combinations = [{**one, parameter: value} for one in combinations for value in values]
    return [Item(name, table, **one) for one in combinations]


def test_every_value_of_every_parameter_is_met():
    kinds = [f"kind {n}" for n in range(10)]
    items = combined("test_gradients", tapes=[None, 0], kind=kinds, jit=[False, True])
    chosen = each_value(items)
    assert 10 <= len(chosen) <= 14
    for name, count in (("tapes", 2), ("kind", 10), ("jit", 2)):
        assert len({item.parameters[name] for item in chosen}) == count
    # In the order in which they came.
    assert chosen == [item for item in items if item in set(chosen)]


def test_of_one_parameter_every_case_is_run_and_of_every_function_one():
    items = [
        *combined("test_one", x=[f"{n}" for n in range(5)]),
        Item("test_without"),
        *combined("test_other", x=["0", "1"]),
    ]
    assert each_value(items) == items


def test_of_a_table_a_part():
    items = combined("test_entries", table=3, entry=[f"entry {n}" for n in range(90)])
    chosen = each_value(items)
    assert 15 <= len(chosen) <= 45
    assert chosen == each_nth(items, 3)


def test_parts_do_not_depend_on_other_tests():
    items = combined("test_one", x=[f"{n}" for n in range(100)])
    chosen = each_nth(items, 4)
    assert 10 <= len(chosen) <= 40
    assert each_nth(items[::2], 4) == [item for item in chosen if item in set(items[::2])]
