"""What came of one comparison: wrong, refused, right, or nothing that could be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtorch_bridge import BridgeError, TorchExecutionError

Kind = Literal["wrong", "refused", "right", "torch", "nothing", "no dtype", "no entry"]
# How an `OutputError` says what it met.
_WHEN_RUN = re.compile("planned .+, but torch returned")
# What it says where torch has no abstract rule for such a result, so that this shows when it runs.
SIZES_FROM_VALUES = "Shapes must follow from the arguments' shapes, not from their values"
# Of several calls in one way, the first of these that any of them came to.
_ORDER: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Outcome:
    """How a call from JAX compares with torch.

    Attributes:
        kind: ``right``: torch's results. ``nothing``: there is nothing to compare, such as a
            gradient by integers. ``no dtype``, ``no entry``: torch does not have the operator for
            it, or at all. ``torch``: torch itself raises at the same, and so do we; or it
            contradicts itself. ``refused``: an error of ours, on purpose. ``wrong``: anything
            else.
        words: The error's, or where the results differ.
    """

    kind: Kind
    words: str = ""


class NothingToCompareError(Exception):
    """A call has no such result as is asked for."""


def outcome_of(
    expect: Callable[[], Any], find: Callable[[], Any], compare: Callable[[Any, Any], None]
) -> Outcome:
    """What comes of a call, on both sides.

    Args:
        expect: Torch's results, from torch alone.
        find: The results through JAX.
        compare: Takes both, what was found first; raises where they differ.
    """
    try:
        expected = expect()
    except NothingToCompareError as nothing:
        return Outcome("nothing", str(nothing))
    except Exception as error:
        return _without_torch(error, find)
    try:
        found = find()
    except Exception as error:
        return Outcome("refused" if _is_refusal(error) else "wrong", words_of(error))
    try:
        compare(found, expected)
    except Exception as error:
        return Outcome("wrong", words_of(error))
    return Outcome("right")


def _without_torch(error: Exception, find: Callable[[], Any]) -> Outcome:
    try:
        find()
    except Exception:
        return Outcome("torch", words_of(error))
    return Outcome("wrong", f"a result, where torch raises {words_of(error)}")


def combined(outcomes: Sequence[Outcome]) -> Outcome:
    """What came of several calls in one way: the worst, and right if torch could not in others."""
    none = Outcome("nothing", "no sample")
    return min(outcomes, key=lambda outcome: _ORDER.index(outcome.kind), default=none)


def _is_refusal(error: Exception) -> bool:
    # A plain TorchExecutionError says that torch failed, which it did not without us. Its
    # subclasses are things that we object to. When a compiled call runs, only a text is left.
    if _WHEN_RUN.search(str(error)):
        return True
    return isinstance(error, BridgeError) and type(error) is not TorchExecutionError


def words_of(error: BaseException) -> str:
    """An error in one line, without what is another in each process."""
    text = " ".join(str(error).split())
    text = re.sub(r"0x[0-9a-f]+", "0x...", text)
    text = re.sub(r"(?<![:/\w])(/[\w.+-]+)+/", "", text)  # folders
    text = text.partition(" Please file an issue")[0]
    return f"{type(error).__name__}: {text[:400]}".removeprefix("AssertionError: ")
