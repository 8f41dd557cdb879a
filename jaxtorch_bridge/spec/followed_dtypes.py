"""Arrays whose dtype is that of an input: which input, and what it may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .array_tree import Leaves
from .language.problems import Fault, Path
from .language.wording import did_you_mean, listed, quote
from .tensor import TensorSpec


def path_followed(leaf: TensorSpec, inputs: Leaves) -> Path | None:
    """The path of the input that ``leaf`` has its dtype from; None if it has its own."""
    if leaf.dtype.like is None:
        return None
    return next((path for path, _ in inputs if ".".join(path) == leaf.dtype.like), None)


def choices_of(leaf: TensorSpec, inputs: Leaves) -> tuple[str, ...]:
    """Every dtype that ``leaf`` may have."""
    path = path_followed(leaf, inputs)
    return leaf.dtype.choices if path is None else dict(inputs)[path].dtype.choices


def dtype_in_call(leaf: TensorSpec, inputs: Leaves, chosen: Mapping[Path, str]) -> str | None:
    """The one dtype that ``leaf`` has where the inputs have those of ``chosen``, or None."""
    path = path_followed(leaf, inputs)
    return leaf.dtype.only if path is None else chosen.get(path)


def faults_of_following(leaves: Leaves, inputs: Leaves) -> Iterator[Fault]:
    """What is wrong with the inputs that ``leaves`` name."""
    # Lists, since names may hold dots: two paths can read the same.
    known: dict[str, list[TensorSpec]] = {}
    for path, leaf in inputs:
        known.setdefault(".".join(path), []).append(leaf)
    for path, leaf in leaves:
        like = leaf.dtype.like
        if like is None:
            continue
        target, *others = known.get(like, (None,))
        if target is None:
            expected = f"one of the inputs {listed(known)}{did_you_mean(like, known)}"
            yield Fault(expected, quote(like), (*path, "dtype"))
        elif others:
            expected = "a name that only one input has"
            yield Fault(expected, quote(like), (*path, "dtype"))
        elif target.dtype.like is not None:
            expected = "an input that has a dtype of its own"
            yield Fault(expected, f"{quote(like)}, which is `{target.dtype}`", (*path, "dtype"))
        # A call that leaves it out would have no dtype to follow.
        elif target.optional:
            expected = "an input that every call passes"
            yield Fault(expected, f"{quote(like)}, which is optional", (*path, "dtype"))
