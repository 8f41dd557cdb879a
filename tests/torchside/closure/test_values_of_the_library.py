"""Values of Python's own library and the like count in digests by what they are."""

import array
import collections
import datetime
import decimal
import fractions
import operator
import pathlib
import re
import uuid

import numpy as np
import pytest
import torch

from jaxtorch_bridge.torchside.closure.behaviour_text import behaviour_of


class Number(float):
    pass


MAKE = {
    "Fraction": fractions.Fraction,
    "Decimal": decimal.Decimal,
    "slice": lambda n: slice(0, n),
    "range": range,
    "Pattern": lambda n: re.compile("a" * n),
    "itemgetter": operator.itemgetter,
    "attrgetter": lambda n: operator.attrgetter("a" * n),
    "methodcaller": lambda n: operator.methodcaller("a", n),
    "bytearray": lambda n: bytearray([n]),
    "array": lambda n: array.array("b", [n]),
    "timedelta": datetime.timedelta,
    "date": lambda n: datetime.date(2000, 1, n),
    "UUID": lambda n: uuid.UUID(int=n),
    "Path": lambda n: pathlib.PurePosixPath(str(n)),
    "defaultdict": lambda n: collections.defaultdict(lambda: n),
    "numpy objects": lambda n: np.array([n, None], dtype=object),
    "subclass of float": Number,
    "sparse tensor": lambda n: torch.eye(3).mul(n).to_sparse(),
    "places of a sparse tensor": lambda n: torch.eye(3).roll(n, 0).to_sparse(),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
def test_they_count_by_what_they_are(make):
    def text(number):
        value = make(number)
        return behaviour_of(lambda: value)[0]

    assert text(2) == text(2)
    assert text(2) != text(3)
