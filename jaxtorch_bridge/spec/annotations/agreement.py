"""A contract and the annotations of its function: whether both can be right.

A contract may ask for more than the function does, and promise less. It must not let a call pass
what the function does not take, nor say something else of the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..array_tree import Leaves, Node, leaves_of
from ..compare.corresponding_names import align
from ..language.frozen_mapping import FrozenDict
from ..language.problems import Path
from ..language.shapes import Name, Shape, Term, names_in
from ..language.size_algebra import same_term, substitute
from ..language.static_arguments import StaticSpec
from ..model import CallableSpec
from ..tensor import TensorSpec
from .read_function import Annotations
from .shapes import is_anonymous


@dataclass(frozen=True)
class Disagreement:
    """Two things that cannot both be right.

    Attributes:
        path: Where in the contract.
        annotated: What the annotation says.
        declared: What the contract says.
    """

    path: Path
    annotated: str
    declared: str


def disagreements(spec: CallableSpec, found: Annotations) -> Iterator[Disagreement]:
    """Where ``spec`` and the annotations ``found`` contradict each other."""
    known: dict[str, Term] = {}
    # Inputs first: they tell what the annotation's names are in the contract.
    for name, node in spec.inputs.items():
        if name in found.static:
            text = f"a static argument, `{found.static[name].type or 'a choice'}`"
            yield Disagreement(("inputs", name), text, "an input")
        elif name in found.inputs:
            yield from _input(spec, name, node, found.inputs[name], known)
    for name, static in spec.static.items():
        if name in found.inputs:
            yield Disagreement(("static", name), _text(found.inputs[name]), "a static argument")
        elif name in found.static:
            yield from _static(name, static, found.static[name])
    if found.outputs is not None:
        yield from _outputs(spec, found.outputs, known)


def _input(
    spec: CallableSpec, name: str, node: Node, annotated: Node, known: dict[str, Term]
) -> Iterator[Disagreement]:
    mine, theirs = dict(leaves_of(node, (name,))), dict(leaves_of(annotated, (name,)))
    for path, leaf in mine.items():
        if path not in theirs:
            yield Disagreement(("inputs", *path), f"no such array in {_text(annotated)}", str(leaf))
            continue
        takes = theirs[path]
        fits = set(spec.dtypes_of(leaf)) <= set(takes.dtype.choices)
        fits = fits and _fits(takes.shape, leaf.shape, known)
        if not fits or (leaf.optional and not takes.optional):
            optional = ", optional" if leaf.optional else ""
            always = "" if takes.optional or not leaf.optional else ", always passed"
            yield Disagreement(("inputs", *path), f"{takes}{always}", f"{leaf}{optional}")
    for path, takes in theirs.items():
        if path not in mine and not takes.optional:
            yield Disagreement(("inputs", *path), f"{takes}, always passed", "nothing")


def _static(name: str, static: StaticSpec, annotated: StaticSpec) -> Iterator[Disagreement]:
    if not _takes_all(annotated, static):
        yield Disagreement(("static", name), _kind(annotated), _kind(static))


def _takes_all(annotated: StaticSpec, static: StaticSpec) -> bool:
    if static.choices:
        return all(annotated.problem_with(one) is None for one in static.choices)
    if static.type is not None and annotated.type is not None:
        return annotated.type.covers(static.type)
    if static.type is None:
        return static.required or annotated.problem_with(static.default) is None
    return False  # any value of a type, where the function takes but a few


def _kind(static: StaticSpec) -> str:
    if static.choices:
        return f"one of {static.choices_text}"
    return f"`{static.type}`" if static.type else f"default {static.default!r}"


def _outputs(
    spec: CallableSpec, annotated: Mapping[str, Node], known: dict[str, Term]
) -> Iterator[Disagreement]:
    mine = spec.returned_leaves()
    theirs = _in_order(mine, annotated, spec)
    if theirs is None:
        yield Disagreement(("outputs",), _text(FrozenDict(annotated)), _leaves_text(mine))
        return
    told = {name for _, leaf in spec.input_leaves() for name in leaf.shape.plain_names}
    for (path, leaf), gives in zip(mine, theirs, strict=True):
        promised, given = set(spec.dtypes_of(leaf)), set(gives.dtype.choices)
        # Either side may say more exactly which dtype comes back.
        same_dtype = promised <= given or given <= promised
        if not same_dtype or not _fits(gives.shape, leaf.shape, known, told):
            yield Disagreement(("outputs", *path), str(gives), str(leaf))


def _in_order(
    mine: Leaves, annotated: Mapping[str, Node], spec: CallableSpec
) -> list[TensorSpec] | None:
    """The annotated results in the contract's order: by name, or else by position."""
    leaves = [leaf for name, node in annotated.items() for leaf in leaves_of(node, (name,))]
    by_name = dict(leaves)
    if set(by_name) == {path for path, _ in mine}:
        return [by_name[path] for path, _ in mine]
    if len(annotated) != len(spec.outputs) or len(leaves) != len(mine):
        return None
    renamed = dict(zip(annotated, spec.outputs, strict=True))
    placed = {(renamed[path[0]], *path[1:]): leaf for path, leaf in leaves}
    if set(placed) != {path for path, _ in mine}:
        return None
    return [placed[path] for path, _ in mine]


def _fits(
    annotated: Shape, declared: Shape, known: dict[str, Term], told: set[str] | None = None
) -> bool:
    """Whether every array of shape ``declared`` has the annotated shape.

    Args:
        annotated: The annotation's.
        declared: The contract's.
        known: Names of the annotation -> what they are in the contract; filled in here.
        told: Names whose sizes the contract's inputs tell, for results; others may be any.
    """
    pairs = align(annotated, declared)
    if pairs is None:
        return False
    for mine, theirs in pairs[0]:
        if is_anonymous(mine) or (told is not None and not names_in(theirs) <= told):
            continue
        if isinstance(mine, Name):
            met = known.setdefault(mine.name, theirs)
        else:
            # Arithmetic over names that nothing has told so far is not looked at.
            translated = substitute(mine, known)
            if translated is None:
                continue
            met = translated
        if not same_term(met, theirs):
            return False
    return True


def _text(node: Node) -> str:
    return f"`{node}`" if isinstance(node, TensorSpec) else _leaves_text(leaves_of(node))


def _leaves_text(leaves: Leaves) -> str:
    return ", ".join(f"`{'.'.join(path)}` {leaf}" for path, leaf in leaves)
