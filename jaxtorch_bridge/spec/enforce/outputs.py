"""The arrays that torch returns: what they will be, and whether they are."""

from __future__ import annotations

from collections.abc import Sequence

from ... import dtypes
from ...errors import SpecMismatchError
from ..bounded_sizes import Bound
from ..followed_dtypes import dtype_in_call
from ..language.problems import Path
from ..language.sizes import Binder, Clash, Sizes, resolve
from ..language.wording import listed
from ..model import CallableSpec
from .array_mismatch import ShapeAndDtype, Subject, compare

_BOTH_AGREE = "Change the function or the contract so that both agree."


def resolve_outputs(
    spec: CallableSpec, sizes: Sizes
) -> tuple[tuple[Path, tuple[int, ...], str], ...] | None:
    """Path, shape and contract dtype of every output; None if only running it can tell.

    Raises:
        SpecMismatchError: If arithmetic over these sizes divides by zero or is negative.
    """
    result = []
    for path, leaf in spec.output_leaves():
        try:
            shape = resolve(leaf.shape, sizes)
        except Clash as clash:
            remedy = "Call it with other sizes, or change the contract."
            subject = Subject(spec, "output", path)
            raise subject.error(clash.expected, clash.found, remedy, sizes) from None
        dtype = dtype_in_call(leaf, spec.input_leaves(), dict(sizes.dtypes))
        # One open output leaves all open: a call is planned with every output or none.
        if shape is None or dtype is None:
            return None
        result.append((path, shape, dtype))
    return tuple(result)


def check_outputs(
    spec: CallableSpec,
    sizes: Sizes,
    outputs: Sequence[ShapeAndDtype],
    *,
    x64: bool,
    when: str,
) -> Sizes:
    """The sizes of the call, with the names added that only outputs have.

    Args:
        spec: The contract.
        sizes: What the inputs gave.
        outputs: Shape and torch dtype name of all outputs, in the contract's order.
        x64: Whether JAX holds 64-bit dtypes; where not, 64 and 32 bits count as the same.
        when: ``"when tracing"`` or ``"when running"``, for the message.

    Raises:
        SpecMismatchError: If the number of outputs, a rank, a size or a dtype differs.
    """
    leaves = spec.output_leaves()
    if len(outputs) != len(leaves):
        raise miscounted(spec, len(outputs), when, sizes)
    binder = Binder(sizes)
    given = [(Subject(spec, "output", path, when), leaf) for path, leaf in leaves]
    for (subject, leaf), (shape, dtype) in zip(given, outputs, strict=True):
        decided = dtype_in_call(leaf, spec.input_leaves(), dict(sizes.dtypes))
        allowed = (decided,) if decided else spec.dtypes_of(leaf)
        # Both sides as JAX holds them: while x64 is off, torch's own width does not show.
        held = {dtypes.canonical_name(one, x64=x64) for one in allowed}
        if dtypes.canonical_name(dtype, x64=x64) not in held:
            remark = "" if dtype in dtypes.DTYPES else f" ({dtypes.remark_on(dtype)})"
            found = f"{dtype}{remark} in shape {shape}"
            expected = f"dtype {' or '.join(allowed)}"
            if leaf.dtype.like is not None:
                expected += f", that of `{leaf.dtype.like}`"
            raise subject.error(expected, found, _BOTH_AGREE, sizes)
    shapes = [(*one, shape) for one, (shape, _) in zip(given, outputs, strict=True)]
    compare(binder, shapes, _BOTH_AGREE)
    return binder.sizes


def check_returned(spec: CallableSpec, sizes: Sizes, shapes: Sequence[tuple[int, ...]]) -> Sizes:
    """The sizes of a run, with those of dimensions that have a bound.

    An evaluation may have symbols for some, which are not looked at.

    Args:
        spec: The contract.
        sizes: What the inputs gave.
        shapes: Of all that torch returned, in the contract's order.

    Raises:
        SpecMismatchError: A rank or a size differs.
    """
    binder = Binder(sizes)
    given = [
        (
            Subject(spec, "output", path, "when running"),
            leaf,
            tuple(size if isinstance(size, int) else None for size in shape),
        )
        for (path, leaf), shape in zip(spec.returned_leaves(), shapes, strict=True)
    ]
    compare(binder, given, _BOTH_AGREE)
    return binder.sizes


def too_many(
    spec: CallableSpec, sizes: Sizes, bound: Bound, count: int | str, most: int | None
) -> SpecMismatchError:
    """The error for a dimension that has more than its bound."""
    path = next(
        path for path, leaf in spec.returned_leaves() if bound.name in leaf.shape.plain_names
    )
    subject = Subject(spec, "output", path, "when running")
    if most is None:
        remedy = "Pass the argument that has that size, or take another bound."
        return subject.error(f"a size for the bound `{bound}`", f"{count}", remedy, sizes)
    remedy = "Raise the bound, or say `overflow: cut` for what is beyond it to be lost."
    return subject.error(f"at most {most} (`{bound}`)", f"{count}", remedy, sizes)


def miscounted(
    spec: CallableSpec, count: int, when: str, sizes: Sizes, *, returned: bool = False
) -> SpecMismatchError:
    """The error for another number of results.

    Args:
        spec: The contract.
        count: How many came.
        when: When, for the message.
        sizes: What the inputs gave.
        returned: They are counted as torch returns them.
    """
    remedy = _BOTH_AGREE
    if returned and spec.counts:
        made = listed(".".join(path) for path in spec.counts)
        remedy = f"The function does not return {made}, which is counted for it. {remedy}"
    leaves = spec.returned_leaves() if returned else spec.output_leaves()
    names = [".".join(path) for path, _ in leaves]
    noun = "array" if count == 1 else "arrays"
    return SpecMismatchError(
        f"{spec.label}, outputs: expected {len(names)} ({listed(names)}); "
        f"torch returned {count} {noun} {when}. {remedy} [{spec.where('outputs')}]",
        callable_name=spec.label,
        argument="outputs",
        sizes=sizes.named,
        path="outputs",
        place=spec.where("outputs"),
        expected=f"{len(names)} ({listed(names)})",
        found=f"torch returned {count} {noun} {when}",
    )
