"""What a caller has declared of one function, where no contract says it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from ..dtypes import canonical_name
from ..errors import OutputError
from .array_signature import ArraySig, OutputMeta


@dataclass(frozen=True)
class Declared:
    """For the array leaves and results of one way of calling, flat and in order.

    Attributes:
        outputs: What comes back; None: to be found out.
        torch_dtypes: What torch is to see of each array, where JAX holds its narrower kind; None
            or left out: what JAX holds.
        depth: The highest order of derivative a caller may take; None: any.
        autograd_only: Differentiate by ``torch.autograd.grad`` and nothing else.
        lock: Held by every run of the function, of its derivatives and of its batched forms.
        told_of_copies: Of what the function is seen to write to, calls give it copies; here is
            which the caller has been told of. None: such a write is an error.
    """

    outputs: tuple[OutputMeta, ...] | None = None
    torch_dtypes: tuple[str | None, ...] = ()
    depth: int | None = None
    autograd_only: bool = False
    lock: AbstractContextManager[Any] | None = None
    told_of_copies: set[str] | None = field(default=None, compare=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Declared:
        """Itself: nothing in it changes, and a copy of a callable holds the same lock."""
        return self


NOTHING_DECLARED = Declared()


def with_torch_dtypes(
    inputs: Sequence[ArraySig], dtypes: Sequence[str | None], *, x64: bool
) -> tuple[ArraySig, ...]:
    """The inputs, each seen by torch in the dtype declared if JAX holds that one's values."""
    if not dtypes:
        return tuple(inputs)
    return tuple(
        replace(sig, torch_dtype=dtype)
        # An array of another dtype than the declared one is seen as it is.
        if dtype is not None and canonical_name(dtype, x64=x64) == sig.dtype
        else sig
        for sig, dtype in zip(inputs, dtypes, strict=True)
    )


def check_declared(
    label: str, declared: Sequence[OutputMeta], found: Sequence[OutputMeta], *, x64: bool
) -> None:
    """Compare what was declared with what a function was seen to return.

    Raises:
        OutputError: Number, shapes or dtypes differ.
    """
    if len(declared) != len(found):
        raise OutputError(
            f"{label}: expected {_counted(declared)}, as declared; torch returns "
            f"{_counted(found)}. Declare what the function returns, or leave it to be found out.",
            callable_name=label,
        )
    for index, (wanted, got) in enumerate(zip(declared, found, strict=True)):
        # As JAX holds both: while x64 is off int64 and int32 are one.
        same_dtype = canonical_name(wanted.torch_dtype, x64=x64) == canonical_name(
            got.torch_dtype, x64=x64
        )
        if wanted.shape != got.shape or not same_dtype:
            raise OutputError(
                f"{label}, output {index}: expected {_words(wanted)}, as declared; torch returns "
                f"{_words(got)}. Declare what the function returns, or leave it to be found out.",
                callable_name=label,
            )


def _counted(outputs: Sequence[OutputMeta]) -> str:
    noun = "result" if len(outputs) == 1 else "results"
    return f"{len(outputs)} {noun} ({', '.join(_words(meta) for meta in outputs)})"


def _words(meta: OutputMeta) -> str:
    return f"{meta.torch_dtype}[{', '.join(map(str, meta.shape))}]"
