"""One call against its contract: what comes in, what torch returns, which keywords it has.

Works on shapes and dtype names alone, so that it can run while tracing and without a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import dtypes
from ..errors import SpecMismatchError
from .bounded_sizes import Bound
from .followed_dtypes import dtype_in_call
from .language.sizes import Binder, Clash, PartlyKnown, Sizes, resolve
from .language.wording import did_you_mean, listed, one_line, show
from .model import CallableSpec
from .tensor import TensorSpec

__all__ = ["Sizes", "bind_inputs", "check_outputs", "check_static", "resolve_outputs"]

Path = tuple[str, ...]
ShapeAndDtype = tuple[tuple[int, ...], str]

# Integers whose 32-bit form the caller widens for torch, which wants int64 for labels and indices.
_WIDENED = ("int64", "uint64")


@dataclass(frozen=True)
class _Subject:
    """The input or output that a message is about."""

    spec: CallableSpec
    kind: str
    path: Path
    when: str = ""

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def error(self, expected: str, found: str, remedy: str, sizes: Sizes) -> SpecMismatchError:
        """Where, what was expected, what came and what to try."""
        came = f"torch returned {found} {self.when}" if self.when else f"got {found}"
        bound = f" Sizes so far: {sizes}." if str(sizes) else ""
        path = ".".join((f"{self.kind}s", *self.path))
        place = self.spec.where(path)
        return SpecMismatchError(
            f"{self.spec.label}, {self.kind} `{self.name}`: expected {expected}; {came}.{bound} "
            f"{remedy} [{place}]",
            callable_name=self.spec.label,
            argument=self.name,
            sizes=sizes.named,
            path=path,
            place=place,
            expected=expected,
            found=came,
        )


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
    _compare(
        binder,
        [(_Subject(spec, "input", path), leaf, shape) for path, leaf, (shape, _) in given],
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
        (_Subject(spec, "input", path), leaf, shapes[path])
        for path, leaf in spec.input_leaves()
        if path in shapes
    ]
    _compare(binder, given, "Make both agree.")
    return binder.sizes


def _compare(
    binder: Binder,
    given: Sequence[tuple[_Subject, TensorSpec, PartlyKnown]],
    remedy: str,
) -> None:
    # All plain names first: arithmetic may speak of a name that a later array binds.
    for step in (_bind, _check):
        for subject, leaf, shape in given:
            step(binder, subject, leaf, shape, remedy)


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
    subject = _Subject(spec, "input", path)
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


def _check_names(
    spec: CallableSpec, known: Mapping[Path, TensorSpec], leaves: Mapping[Path, ShapeAndDtype]
) -> None:
    names = [".".join(path) for path in known]
    for path, (shape, dtype) in leaves.items():
        if path in known:
            continue
        subject = _Subject(spec, "input", path)
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
            subject = _Subject(spec, "input", path)
            raise subject.error(f"an array {leaf}", "nothing", remedy, Sizes())


def _accepted(dtype: str, *, x64: bool) -> tuple[str, str]:
    narrowed = dtypes.canonical_name(dtype, x64=x64 and dtype not in _WIDENED)
    return dtype, narrowed


def _bind(
    binder: Binder, subject: _Subject, leaf: TensorSpec, shape: PartlyKnown, remedy: str
) -> None:
    try:
        binder.bind(leaf.shape, shape, subject.name)
    except Clash as clash:
        found = f"{clash.found} in shape {shape}"
        raise subject.error(clash.expected, found, remedy, binder.sizes) from None


def _check(
    binder: Binder, subject: _Subject, leaf: TensorSpec, shape: PartlyKnown, remedy: str
) -> None:
    try:
        binder.check(leaf.shape, shape)
    except Clash as clash:
        found = f"{clash.found} in shape {shape}"
        raise subject.error(clash.expected, found, remedy, binder.sizes) from None


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
            subject = _Subject(spec, "output", path)
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
    given = [(_Subject(spec, "output", path, when), leaf) for path, leaf in leaves]
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
    _compare(binder, shapes, _BOTH_AGREE)
    return binder.sizes


_BOTH_AGREE = "Change the function or the contract so that both agree."


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
            _Subject(spec, "output", path, "when running"),
            leaf,
            tuple(size if isinstance(size, int) else None for size in shape),
        )
        for (path, leaf), shape in zip(spec.returned_leaves(), shapes, strict=True)
    ]
    _compare(binder, given, _BOTH_AGREE)
    return binder.sizes


def too_many(
    spec: CallableSpec, sizes: Sizes, bound: Bound, count: int, most: int | None
) -> SpecMismatchError:
    """The error for a dimension that has more than its bound."""
    path = next(
        path for path, leaf in spec.returned_leaves() if bound.name in leaf.shape.plain_names
    )
    subject = _Subject(spec, "output", path, "when running")
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


def check_static(spec: CallableSpec, given: Mapping[str, object]) -> None:
    """Do nothing if the static arguments of a call are those of the contract.

    Args:
        spec: The contract.
        given: Name -> value of each argument that is no array. None and empty containers may also
            be inputs that are left out.

    Raises:
        SpecMismatchError: If one is not listed, has another type or is none of the choices, or
            if one that has no default is missing.
    """
    for name, value in given.items():
        if name in spec.static:
            expected = spec.static[name].problem_with(value)
            if expected is not None:
                remedy = "Pass such a value, or change the contract."
                raise _static_error(spec, name, expected, show(value), remedy, f"static.{name}")
        elif not _is_empty(value) and (name in spec.inputs or spec.complete):
            raise _unknown_static(spec, name)
    for name, static in spec.static.items():
        if static.required and name not in given:
            kind = f"a value of type `{static.type}`" if static.type else "a value"
            remedy = "Pass it, or give it a `default` in the contract."
            raise _static_error(spec, name, kind, "nothing", remedy, f"static.{name}")


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, (list, tuple, dict)) and not value)


def _unknown_static(spec: CallableSpec, name: str) -> SpecMismatchError:
    if name in spec.inputs:
        expected, remedy = "an array, as it is an input in the contract", "Pass an array."
        return _static_error(spec, name, expected, "a static value", remedy, f"inputs.{name}")
    known = did_you_mean(name, spec.static)
    expected = f"one of the static arguments {listed(spec.static)}{known}"
    remedy = "List it under `static` in the contract or leave it out."
    return _static_error(spec, name, expected, "a static value", remedy, "static")


def _static_error(
    spec: CallableSpec, name: str, expected: str, found: str, remedy: str, path: str
) -> SpecMismatchError:
    return SpecMismatchError(
        f"{spec.label}, argument `{name}`: expected {expected}; got {found}. {remedy} "
        f"[{spec.where(path)}]",
        callable_name=spec.label,
        argument=name,
        path=path,
        place=spec.where(path),
        expected=expected,
        found=f"got {found}",
    )
