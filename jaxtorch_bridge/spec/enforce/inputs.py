"""The arrays that a call passes: their names, dtypes and shapes, and what these say of sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ... import dtypes
from ...errors import SpecMismatchError
from ..followed_dtypes import dtype_in_call
from ..language.problems import Path
from ..language.sizes import Binder, Sizes
from ..language.wording import did_you_mean, listed, one_line
from ..model import CallableSpec
from ..tensor import TensorSpec
from .array_mismatch import ShapeAndDtype, Subject, compare

# Integers whose 32-bit form the caller widens for torch, which wants int64 for labels and indices.
_WIDENED = ("int64", "uint64")


def bind_inputs(spec: CallableSpec, leaves: Mapping[Path, ShapeAndDtype], *, x64: bool) -> Sizes:
    """The sizes that the array arguments of a call give to the contract's dimension names.

    Args:
        spec: The contract.
        leaves: Path of each array -> its shape and JAX dtype name.
        x64: Whether JAX holds 64-bit dtypes. Where it does not, the contract's 64-bit dtypes
            stand for their 32-bit ones; 32-bit integers always do for 64-bit ones.

    Raises:
        SpecMismatchError: If an input is missing, not listed, or has another rank, size or dtype,
            or if a constraint does not hold.
    """
    known = dict(spec.input_leaves())
    _check_names(spec, known, leaves)
    given = [(path, known[path], leaves[path]) for path in known if path in leaves]
    binder = Binder(Sizes(dtypes=tuple(_choose_dtypes(spec, leaves, x64=x64).items())))
    compare(
        binder,
        [(Subject(spec, "input", path), leaf, shape) for path, leaf, (shape, _) in given],
        "Make both agree.",
    )
    _check_constraints(spec, binder.sizes)
    return binder.sizes


def bind_shapes(spec: CallableSpec, shapes: Mapping[Path, tuple[int, ...]]) -> Sizes:
    """The same from the shapes alone, of a call that has been held against the contract.

    Raises:
        SpecMismatchError: They do not fit it, as those of a batch that is passed as one call.
    """
    binder = Binder(Sizes())
    given = [
        (Subject(spec, "input", path), leaf, shapes[path])
        for path, leaf in spec.input_leaves()
        if path in shapes
    ]
    compare(binder, given, "Make both agree.")
    return binder.sizes


def _check_names(
    spec: CallableSpec, known: Mapping[Path, TensorSpec], leaves: Mapping[Path, ShapeAndDtype]
) -> None:
    names = [".".join(path) for path in known]
    for path, (shape, dtype) in leaves.items():
        if path in known:
            continue
        subject = Subject(spec, "input", path)
        found = f"an array {dtype} of shape {shape}"
        if path[0] in spec.static:
            expected = "a plain Python value, as it is static in the contract"
            raise subject.error(expected, found, "Pass a value that is no array.", Sizes())
        # A contract in annotations need not speak of every argument.
        if not spec.complete:
            continue
        expected = f"one of the inputs {listed(names)}{did_you_mean(subject.name, names)}"
        remedy = "List it in the contract or leave it out."
        raise subject.error(expected, found, remedy, Sizes())
    for path, leaf in known.items():
        if path not in leaves and not leaf.optional:
            remedy = "Pass it, or make it `optional: true` in the contract."
            subject = Subject(spec, "input", path)
            raise subject.error(f"an array {leaf}", "nothing", remedy, Sizes())


def _choose_dtypes(
    spec: CallableSpec, leaves: Mapping[Path, ShapeAndDtype], *, x64: bool
) -> dict[Path, str]:
    """Of each input that a call passes, which of the contract's dtypes it has."""
    inputs = spec.input_leaves()
    chosen: dict[Path, str] = {}
    # Those that others follow first.
    for path, leaf in sorted(inputs, key=lambda item: item[1].dtype.like is not None):
        if path not in leaves:
            continue
        shape, dtype = leaves[path]
        allowed = spec.dtypes_of(leaf) if leaf.dtype.like is None else ()
        decided = dtype_in_call(leaf, inputs, chosen)
        fitting = meant_by(dtype, (decided,) if decided else allowed, x64=x64)
        if fitting is None:
            raise _wrong_dtype(spec, path, leaf, f"{dtype} in shape {shape}", decided, x64)
        chosen[path] = fitting
    # Back in the contract's order.
    return {path: chosen[path] for path, _ in inputs if path in chosen}


def _wrong_dtype(
    spec: CallableSpec, path: Path, leaf: TensorSpec, found: str, decided: str | None, x64: bool
) -> SpecMismatchError:
    allowed = (decided,) if decided else spec.dtypes_of(leaf)
    expected = f"dtype {_alternatives(allowed, x64=x64)}"
    if leaf.dtype.like is not None:
        expected += f", that of `{leaf.dtype.like}`"
    subject = Subject(spec, "input", path)
    remedy = f"Cast `{subject.name}` before the call, or change the contract."
    return subject.error(expected, found, remedy, Sizes())


def _alternatives(names: Iterable[str], *, x64: bool) -> str:
    """``float32``, ``float32 or bfloat16``: what JAX calls the dtypes."""
    # Each once: two of the contract's dtypes may be one to JAX while x64 is off.
    held = dict.fromkeys(dtypes.canonical_name(one, x64=x64) for one in names)
    *others, last = held
    return f"{', '.join(others)} or {last}" if others else last


def meant_by(dtype: str, allowed: Iterable[str], *, x64: bool) -> str | None:
    """Which of the contract's dtypes ``allowed`` a JAX array of ``dtype`` stands for, or None."""
    names = tuple(allowed)
    if dtype in names:
        return dtype
    return next((one for one in names if dtype in _accepted(one, x64=x64)), None)


def _accepted(dtype: str, *, x64: bool) -> tuple[str, str]:
    narrowed = dtypes.canonical_name(dtype, x64=x64 and dtype not in _WIDENED)
    return dtype, narrowed


def _check_constraints(spec: CallableSpec, sizes: Sizes) -> None:
    for index, constraint in enumerate(spec.constraints):
        try:
            kept = constraint.holds(sizes.named)
            found = f"{constraint.with_sizes(sizes.named)}"
        except ZeroDivisionError:
            kept, found = False, "a division by zero"
        # None: it speaks of a dimension that only a left-out optional input has.
        if kept is False:
            remark = f" ({one_line(constraint.doc)})" if constraint.doc else ""
            raise SpecMismatchError(
                f"{spec.label}, constraint `{constraint}`{remark}: expected it to hold; got "
                f"{found}. Sizes: {sizes}. Call it with other sizes, or change the contract. "
                f"[{spec.where(f'constraints.{index}')}]",
                callable_name=spec.label,
                argument=str(constraint),
                sizes=sizes.named,
                path=f"constraints.{index}",
                place=spec.where(f"constraints.{index}"),
                expected=f"`{constraint}` to hold",
                found=f"got {found}",
            )
