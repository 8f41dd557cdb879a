"""Which dtypes an array of a contract may have: one, one of several, or that of an input.

``float32`` · ``[float32, bfloat16]`` or ``float32|bfloat16`` · ``{like: x}`` or ``like x``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from ... import dtypes
from .problems import Fault, fault, raise_faults
from .wording import did_you_mean, quote, show

_LIKE = "like "
_EXAMPLE = "a dtype, a list of dtypes, or `{like: x}` with the name of an input"
_ORDER = {name: number for number, name in enumerate(dtypes.DTYPES)}


@dataclass(frozen=True)
class Dtype:
    """The dtypes that an array may have.

    Attributes:
        choices: Names of `dtypes.DTYPES`, in that table's order; empty if an input decides.
        like: The dotted path of the input whose dtype it has, or None.
    """

    choices: tuple[str, ...] = ()
    like: str | None = None

    @property
    def only(self) -> str | None:
        """The one dtype that it may have, or None if there are several or an input decides."""
        return self.choices[0] if len(self.choices) == 1 else None

    @property
    def differentiable(self) -> bool:
        """Whether gradients may flow through such an array, as far as the dtype goes."""
        # Of one that follows an input nothing is known here, so that it may be.
        return not self.choices or any(dtypes.DTYPES[one].differentiable for one in self.choices)

    def __str__(self) -> str:
        return f"{_LIKE}{self.like}" if self.like is not None else "|".join(self.choices)

    def to_data(self) -> str | list[str] | dict[str, str]:
        """The dtype as a contract writes it."""
        if self.like is not None:
            return {"like": self.like}
        return self.only or list(self.choices)


def read_dtype(value: object) -> Dtype:
    """The dtype that stands in a contract.

    Raises:
        PydanticCustomError: If it is none.
        ValidationError: With everything that is wrong in a list.
    """
    if isinstance(value, Dtype):
        return value
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, Mapping):
        return _read_like(value)
    if not isinstance(value, (list, tuple)):
        raise fault(_EXAMPLE, show(value))
    if not value:
        raise fault("at least one dtype", "an empty list")
    faults = []
    for index, one in enumerate(value):
        if not isinstance(one, str):
            faults.append(Fault("the name of a dtype", show(one), (str(index),)))
        elif one not in dtypes.DTYPES:
            faults.append(Fault(*_unknown(one), (str(index),)))
        elif one in value[:index]:
            faults.append(Fault("each dtype once", f"{quote(one)} again", (str(index),)))
    raise_faults(faults)
    return _one_of(value)


def differentiable_by_default(value: object) -> bool:
    """Whether gradients flow where a contract gives this dtype and says no more."""
    if isinstance(value, str) and value in dtypes.DTYPES:
        return dtypes.DTYPES[value].differentiable
    try:
        return read_dtype(value).differentiable
    except (PydanticCustomError, ValueError):  # reported when the dtype itself is read
        return False


def _read_text(text: str) -> Dtype:
    if text in dtypes.DTYPES:
        return Dtype((text,))
    if text.strip().startswith(_LIKE):
        return Dtype(like=text.strip()[len(_LIKE) :].strip())
    names = [part.strip() for part in text.split("|")]
    for name in names:
        if name not in dtypes.DTYPES:
            raise fault(*_unknown(name))
        if names.count(name) > 1:
            raise fault("each dtype once", f"{quote(name)} twice in {quote(text)}")
    return _one_of(names)


def _read_like(value: Mapping[object, object]) -> Dtype:
    target = value.get("like")
    if set(value) != {"like"} or not isinstance(target, str) or not target.strip():
        found = show(value) if set(value) == {"like"} or not value else "other fields"
        raise fault(_EXAMPLE, found if "like" not in value else f"like: {show(target)}")
    return Dtype(like=target)


def _one_of(names: list[str] | tuple[str, ...]) -> Dtype:
    # One order, so that contracts which list the same dtypes otherwise are equal.
    return Dtype(tuple(sorted(names, key=_ORDER.__getitem__)))


def _unknown(name: str) -> tuple[str, str]:
    remark = f" ({dtypes.remark_on(name)})" if name in dtypes.WITHOUT_PARTNER else ""
    hint = "" if remark else did_you_mean(name, dtypes.DTYPES)
    return f"a dtype that both JAX and torch have{hint}", f"{quote(name)}{remark}"
