"""The dtypes of two contracts compared.

Arrays may have several dtypes, and may have that of another. So what counts is every set of dtypes
that an old call can have: whether new inputs take it, and what new outputs make of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from ... import dtypes
from ..followed_dtypes import path_followed
from ..language.problems import Path
from ..model import CallableSpec
from ..tensor import TensorSpec
from .shapes import Found

# Integers whose 32-bit form callers may pass as well.
_ALSO_32_BITS = {"int64": "int32", "uint64": "uint32"}


def input_dtype_changes(
    path: Path, old: CallableSpec, before: TensorSpec, new: CallableSpec, after: TensorSpec
) -> Iterator[Found]:
    """Taking fewer dtypes is breaking, taking more additive."""
    if before.dtype == after.dtype:
        return
    text = _text(before, after)
    refused = _refused(path, old, new, after)
    if refused is not None:
        yield "breaking", path, f"{text}; {refused}"
    elif _refused(path, new, old, before) is not None or _widened(before, after):
        yield "additive", path, text


def output_dtype_changes(
    path: Path, old: CallableSpec, before: TensorSpec, new: CallableSpec, after: TensorSpec
) -> Iterator[Found]:
    """Giving another dtype is breaking, saying more of which one it is additive."""
    was, now = _root(before, old), _root(after, new)
    narrower = False
    for chosen in _assignments(old, [one for one in (was, now) if one is not None]):
        # In one old call: what its callers knew, and what they get now.
        known = {chosen[was]} if was is not None else set(before.dtype.choices)
        given = set(after.dtype.choices)
        if now is not None:
            took = _meaning(chosen[now], new.dtypes_of(dict(new.input_leaves())[now]))
            if took is None:  # the input says that already
                continue
            given = {took}
        if not given <= known:
            yield "breaking", path, _text(before, after)
            return
        narrower = narrower or given < known
    if narrower:
        yield "additive", path, f"{_text(before, after)}: callers know more"


def _refused(
    path: Path, writer: CallableSpec, reader: CallableSpec, leaf: TensorSpec
) -> str | None:
    """Why ``leaf``, an input of the reader, does not take all that the writer's calls pass."""
    root = _root(leaf, reader)
    if root is None:
        theirs = writer.dtypes_of(dict(writer.input_leaves())[path])
        missing = [one for one in theirs if _meaning(one, leaf.dtype.choices) is None]
        if not missing:
            return None
        if leaf.dtype.only:
            return "calls must pass exactly this dtype"
        return f"{' and '.join(missing)} may no longer be passed"
    for chosen in _assignments(writer, [path, root]):
        # Some old call passes two dtypes where the new contract wants one.
        if chosen[path] != chosen[root]:
            return f"it must be that of `{'.'.join(root)}`"
    return None


def _assignments(spec: CallableSpec, paths: Iterable[Path]) -> Iterator[dict[Path, str]]:
    """Every way in which the dtypes of these inputs can stand side by side in a call."""
    leaves = dict(spec.input_leaves())
    # What a contract does not have may be anything.
    roots = {
        path: (_root(leaves[path], spec) or path) if path in leaves else path for path in paths
    }
    names = list(dict.fromkeys(roots.values()))
    choices = [
        leaves[root].dtype.choices if root in leaves else tuple(dtypes.DTYPES) for root in names
    ]
    for values in product(*choices):
        by_root = dict(zip(names, values, strict=True))
        yield {path: by_root[root] for path, root in roots.items()}


def _root(leaf: TensorSpec, spec: CallableSpec) -> Path | None:
    return path_followed(leaf, spec.input_leaves())


def _meaning(dtype: str, choices: Iterable[str]) -> str | None:
    """Which of ``choices`` an array of ``dtype`` stands for."""
    names = tuple(choices)
    if dtype in names:
        return dtype
    return next((one for one in names if _ALSO_32_BITS.get(one) == dtype), None)


def _widened(before: TensorSpec, after: TensorSpec) -> bool:
    """Whether arrays that were passed become others for torch, such as int32 now int64."""
    return bool(after.dtype.choices) and not set(before.dtype.choices) <= set(after.dtype.choices)


def _text(before: TensorSpec, after: TensorSpec) -> str:
    old, new = before.dtype.only, after.dtype.only
    verb = "changed"
    if old and new:
        was, now = dtypes.DTYPES[old], dtypes.DTYPES[new]
        if was.kind == now.kind and was.size_bytes != now.size_bytes:
            verb = "narrowed" if now.size_bytes < was.size_bytes else "widened"
    return f"dtype {verb} from {before.dtype} to {after.dtype}"
