"""Static values and structures as data: exact, or refused."""

from __future__ import annotations

import collections
import enum
import json
import math

import jax
import pytest
import torch

from jaxtorch_bridge.calling.pytrees import trees
from jaxtorch_bridge.calling.recipe.not_data import NotDataError
from jaxtorch_bridge.calling.recipe.structures import read_structure, structure_data
from jaxtorch_bridge.calling.recipe.values import read_value, value_data

Pair = collections.namedtuple("Pair", "left right")


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    pass


def through(data):
    return json.loads(json.dumps(data))


VALUES = (
    *(None, True, False, 0, 1, -1, 10**40, "", "text", "\ud800", "é", b"", b"\x00\xff", ...),
    *(0.0, -0.0, 1.0, 0.1, 5e-324, math.inf, -math.inf, complex(-0.0, 1), complex(1, math.inf)),
    *((), (1, (True, 1.0)), [1, []], {"a": 1, 2: (3,)}, frozenset({1, "1"}), torch.Size([2, 0])),
    *(torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.channels_last, torch.strided),
    *(torch.device("cpu"), torch.device("cuda", 1), Level.LOW),
)


def words_of(value):
    # Sets have an order of their own in each process, and those of a test run must agree.
    shown = sorted(map(repr, value)) if isinstance(value, frozenset) else value
    return f"{type(value).__name__} {shown!r}"


@pytest.mark.parametrize("value", VALUES, ids=words_of)
def test_values_come_back_with_their_types(value):
    found = read_value(through(value_data(value)))
    assert type(found) is type(value)
    # By the text too: -0.0 equals 0.0, and True equals 1.
    assert words_of(found) == words_of(value)
    assert found == value


def test_a_number_that_is_none():
    assert math.isnan(read_value(through(value_data(math.nan))))


class Local(enum.Enum):
    ONE = 1


def made_again():
    class Local(enum.Enum):
        ONE = 1

    return Local.ONE


REFUSED = (len, torch.tanh, object(), Text("text"), torch.nn.Identity(), range(3), made_again())


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_other_values_are_no_data(value):
    with pytest.raises(NotDataError):
        value_data((value,))


def test_nesting_has_an_end():
    value = ()
    for _ in range(60):
        value = (value,)
    with pytest.raises(NotDataError, match="nested in more than 50"):
        value_data(value)


TREES = (
    0,
    None,
    ((0, 0), {"b": 0, "a": [0, None, ()]}),
    {(1, "x"): 0, (2, "x"): 0},
    Pair(0, Pair(0, {})),
    collections.OrderedDict(z=0, a=0),
    {Level.LOW: 0},
)


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_structures_come_back(tree):
    structure = trees.flatten(tree)[1]
    found = read_structure(through(structure_data(structure)))
    assert found == structure
    assert hash(found) == hash(structure)
    leaves = jax.tree.leaves(tree)
    assert trees.unflatten(found, leaves) == tree


def test_what_torch_has_registered_comes_back():
    found = torch.ones(2, 2).max(0)
    structure = trees.flatten(found)[1]
    assert read_structure(through(structure_data(structure))) == structure


def test_a_local_class_has_no_name():
    Here = collections.namedtuple("Here", "x")
    with pytest.raises(NotDataError, match="not found by its name"):
        structure_data(trees.flatten(Here(0))[1])
