"""Steps as texts, and back."""

from __future__ import annotations

import pytest

from jaxtorch_bridge.planner.op_steps import read_steps, steps_text

STEPS = (
    (("pushforward", (0, 2)),),
    (("linearize", ()), ("forward",)),
    (("linearize", (0,)), ("linear_call", True, (0,), (0, 1)), ("batched", 3, (0, None), False)),
    (("transposed", (1,), (0,)), ("function", False, (), (0,)), ("batched", 0, (), True)),
    (),
)


@pytest.mark.parametrize("steps", STEPS, ids=str)
def test_steps_come_back_as_they_were(steps):
    assert read_steps(steps_text(steps)) == steps
    assert steps_text(steps).isascii()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[["linearize", [1, 0]]]', "to ascend"),
        ('[["linearize", [0, 0]]]', "to ascend"),
        ('[["linearize", [0], [0]]]', "1 parts"),
        ('[["batched", -1, [], true]]', "to count something"),
        ('[["batched", 2, [0], 1]]', "true or false"),
        ('[["batched", 2, 0, true]]', "a list of axes"),
        ('[["jump"]]', "no step `jump`"),
        ('["linearize"]', "begins with its name"),
        ("[[]]", "begins with its name"),
        ("{}", "a list of at most"),
        (" " * 2_000_000, "2000000 characters"),
        ("[", "Expecting"),
    ],
    ids=lambda part: part[:30],
)
def test_anything_else_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        read_steps(text)
