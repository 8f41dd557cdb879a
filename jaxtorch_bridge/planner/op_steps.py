"""How an op derives from its function's own: a chain of steps, as plain data.

An exported program holds them, so that another process can derive the same op.

| step | of | gives |
|---|---|---|
| ``linearize wrt`` | an op | the derivative by some inputs |
| ``transposed wrt outs`` | an op | the same of a function that is linear in them |
| ``pushforward wrt`` | an op | the op of results and tangents |
| ``batched size dims loop`` | an op | the op for a batch |
| ``forward`` | a derivative | the op of results and residuals |
| ``linear_call transposed ins outs`` | a derivative | the op of the linear part |
| ``function transposed ins outs`` | a derivative | the same as a function of the inputs |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Step = tuple[Any, ...]
Steps = tuple[Step, ...]

# A gradient of a batch of a gradient has some five of them.
_MOST_STEPS = 100
_MOST_CHARACTERS = 1_000_000


def steps_text(steps: Steps) -> str:
    """The steps as a program holds them."""
    return json.dumps(steps, separators=(",", ":"))


def read_steps(text: str) -> Steps:
    """The steps that a program holds.

    Raises:
        ValueError: The text is not one that `steps_text` gives.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"its steps have {len(text)} characters")
    found = json.loads(text)
    if not isinstance(found, list) or len(found) > _MOST_STEPS:
        raise ValueError(f"expected a list of at most {_MOST_STEPS} steps")
    return tuple(map(_read_step, found))


def _read_step(found: Any) -> Step:
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise ValueError("expected each step to be a list that begins with its name")
    name, *parts = found
    readers = _PARTS.get(name)
    if readers is None:
        raise ValueError(f"there is no step `{name[:40]}`")
    if len(parts) != len(readers):
        raise ValueError(f"expected the step `{name}` to have {len(readers)} parts")
    return (name, *(read(name, part) for read, part in zip(readers, parts, strict=True)))


def _flag(name: str, part: Any) -> bool:
    if not isinstance(part, bool):
        raise ValueError(f"expected true or false in the step `{name}`")
    return part


def _size(name: str, part: Any) -> int:
    # A boolean is an int as well.
    if type(part) is not int or part < 0:
        raise ValueError(f"expected a number of the step `{name}` to count something")
    return part


def _indices(name: str, part: Any) -> tuple[int, ...]:
    if not isinstance(part, list):
        raise ValueError(f"expected a list of numbers in the step `{name}`")
    found = tuple(_size(name, number) for number in part)
    if list(found) != sorted(set(found)):
        raise ValueError(f"expected the numbers of the step `{name}` to ascend")
    return found


def _dims(name: str, part: Any) -> tuple[int | None, ...]:
    if not isinstance(part, list):
        raise ValueError(f"expected a list of axes in the step `{name}`")
    return tuple(None if number is None else _size(name, number) for number in part)


_PARTS: dict[str, tuple[Callable[[str, Any], Any], ...]] = {
    "linearize": (_indices,),
    "transposed": (_indices, _indices),
    "pushforward": (_indices,),
    "batched": (_size, _dims, _flag),
    "forward": (),
    "linear_call": (_flag, _indices, _indices),
    "function": (_flag, _indices, _indices),
}
