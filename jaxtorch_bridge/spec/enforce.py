"""One call against its contract: what comes in, what torch returns, which keywords it has.

Works on shapes and dtype names alone, so that it can run while tracing and without a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import dtypes
from ..errors import SpecMismatchError
from .model import CallableSpec
from .sizes import Binder, Clash, Sizes, resolve
from .tensor import TensorSpec
from .words import did_you_mean, listed

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
        place = self.spec.where(".".join((f"{self.kind}s", *self.path)))
        return SpecMismatchError(
            f"{self.spec.label}, {self.kind} `{self.name}`: expected {expected}; {came}.{bound} "
            f"{remedy} [{place}]",
            callable_name=self.spec.label,
            argument=self.name,
            sizes=sizes.named,
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
    binder = Binder(Sizes())
    given = [(path, known[path], leaves[path]) for path in known if path in leaves]
    for path, leaf, (shape, dtype) in given:
        subject = _Subject(spec, "input", path)
        if dtype not in _accepted(leaf.dtype, x64=x64):
            remedy = f"Cast `{subject.name}` before the call, or change the contract."
            expected = f"dtype {dtypes.canonical_name(leaf.dtype, x64=x64)}"
            raise subject.error(expected, f"{dtype} in shape {shape}", remedy, binder.sizes)
    # All plain names first: arithmetic may speak of a name that a later input binds.
    for step in (_bind, _check):
        for path, leaf, (shape, _) in given:
            step(binder, _Subject(spec, "input", path), leaf, shape, "Make both agree.")
    _check_constraints(spec, binder.sizes)
    return binder.sizes


def _check_constraints(spec: CallableSpec, sizes: Sizes) -> None:
    for index, constraint in enumerate(spec.constraints):
        try:
            kept = constraint.holds(sizes.named)
            found = f"{constraint.with_sizes(sizes.named)}"
        except ZeroDivisionError:
            kept, found = False, "a division by zero"
        # None: it speaks of a dimension that only a left-out optional input has.
        if kept is False:
            raise SpecMismatchError(
                f"{spec.label}, constraint `{constraint}`: expected it to hold; got {found}. "
                f"Sizes: {sizes}. Call it with other sizes, or change the contract. "
                f"[{spec.where(f'constraints.{index}')}]",
                callable_name=spec.label,
                argument=str(constraint),
                sizes=sizes.named,
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
    binder: Binder, subject: _Subject, leaf: TensorSpec, shape: tuple[int, ...], remedy: str
) -> None:
    try:
        binder.bind(leaf.shape, shape, subject.name)
    except Clash as clash:
        found = f"{clash.found} in shape {shape}"
        raise subject.error(clash.expected, found, remedy, binder.sizes) from None


def _check(
    binder: Binder, subject: _Subject, leaf: TensorSpec, shape: tuple[int, ...], remedy: str
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
        if shape is None:
            return None
        result.append((path, shape, leaf.dtype))
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
    remedy = "Change the function or the contract so that both agree."
    leaves = spec.output_leaves()
    if len(outputs) != len(leaves):
        raise _miscounted(spec, len(outputs), when, remedy, sizes)
    binder = Binder(sizes)
    given = [(_Subject(spec, "output", path, when), leaf) for path, leaf in leaves]
    for (subject, leaf), (shape, dtype) in zip(given, outputs, strict=True):
        expected = dtypes.canonical_name(leaf.dtype, x64=x64)
        if dtypes.canonical_name(dtype, x64=x64) != expected:
            remark = "" if dtype in dtypes.DTYPES else f" ({dtypes.remark_on(dtype)})"
            found = f"{dtype}{remark} in shape {shape}"
            raise subject.error(f"dtype {leaf.dtype}", found, remedy, sizes)
    for step in (_bind, _check):
        for (subject, leaf), (shape, _) in zip(given, outputs, strict=True):
            step(binder, subject, leaf, shape, remedy)
    return binder.sizes


def _miscounted(
    spec: CallableSpec, count: int, when: str, remedy: str, sizes: Sizes
) -> SpecMismatchError:
    names = [".".join(path) for path, _ in spec.output_leaves()]
    noun = "array" if count == 1 else "arrays"
    return SpecMismatchError(
        f"{spec.label}, outputs: expected {len(names)} ({listed(names)}); "
        f"torch returned {count} {noun} {when}. {remedy} [{spec.where('outputs')}]",
        callable_name=spec.label,
        argument="outputs",
        sizes=sizes.named,
    )


def check_static(spec: CallableSpec, given: Iterable[str]) -> None:
    """Do nothing if the contract lists every static argument of a call.

    Raises:
        SpecMismatchError: If it does not.
    """
    for name in given:
        if name in spec.static:
            continue
        if name in spec.inputs:
            expected, remedy = "an array, as it is an input in the contract", "Pass an array."
        else:
            known = did_you_mean(name, spec.static)
            expected = f"one of the static arguments {listed(spec.static)}{known}"
            remedy = "List it under `static` in the contract or leave it out."
        place = spec.where("inputs." + name if name in spec.inputs else "static")
        raise SpecMismatchError(
            f"{spec.label}, argument `{name}`: expected {expected}; got a static value. "
            f"{remedy} [{place}]",
            callable_name=spec.label,
            argument=name,
        )
