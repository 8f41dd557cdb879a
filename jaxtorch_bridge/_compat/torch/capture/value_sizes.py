"""Sizes in graphs that follow from values, as plain data. Tried on torch 2.13.0 and 2.14.1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..value_symbols import in_general

# Behind which the asserts of a graph stand in its ``meta``.
_ASSERTS = "asserts on sizes"

# Factors, each with the names of the symbols that it multiplies.
Terms = tuple[tuple[int, tuple[str, ...]], ...]


def symbols_of(value: Any) -> set[str]:
    """The names of the symbols in a size, or in the shape of a tensor."""
    sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
    found: set[str] = set()
    for size in sizes:
        if isinstance(size, torch.SymInt):
            found.update(str(symbol) for symbol in size.node.expr.free_symbols)
    return found


def terms_of(size: torch.SymInt) -> Terms | None:
    """A size as a sum of products; None if it is something else.

    The least or the greatest of some sizes has a name as well; see `extremes_of`.
    """
    return _terms(size.node.expr)


def extremes_of(size: torch.SymInt) -> list[tuple[str, str, list[Terms]]]:
    """Each least and greatest of sizes in a size, inner ones first.

    Of each its name, ``min`` or ``max``, and the sizes.
    """
    import sympy

    found: list[tuple[str, str, list[Terms]]] = []
    for part in sympy.postorder_traversal(size.node.expr):
        if _is_extreme(part):
            terms = [one for one in map(_terms, part.args) if one is not None]
            if len(terms) == len(part.args):
                found.append((str(part), part.func.__name__.lower(), terms))
    return found


def _is_extreme(expression: Any) -> bool:
    # Of sympy's, and of torch's own.
    return expression.func.__name__ in ("Min", "Max")


def _terms(expression: Any) -> Terms | None:
    import sympy

    terms: list[tuple[int, tuple[str, ...]]] = []
    for term in sympy.Add.make_args(sympy.expand(expression)):
        factor, rest = term.as_coeff_Mul()
        names: list[str] = []
        for base, power in rest.as_powers_dict().items():
            if base == 1:
                continue
            known = base.is_Symbol or _is_extreme(base)
            if not (known and power.is_Integer and power > 0):
                return None
            names += [str(base)] * int(power)
        if not factor.is_Integer:
            return None
        terms.append((int(factor), tuple(sorted(names))))
    return tuple(sorted(terms))


def check_in_graph(size: Any, most: int, words: str) -> None:
    """Have a graph that is being captured check a size when it runs; see `checked_in_graph`."""
    torch._assert_async(torch.full((), size, dtype=torch.int64) <= most, words)


def checked_in_graph(node: fx.Node) -> tuple[torch.SymInt, int] | None:
    """The size that an operation checks, and the most that it may be; None for other operations."""
    aten = torch.ops.aten
    wanted = (aten._assert_async.msg, aten.le.Scalar, aten.full.default)
    nodes: list[Any] = [node]
    for target in wanted:
        if getattr(nodes[-1], "target", None) is not target:
            return None
        nodes.append(nodes[-1].args[1 if target is aten.full.default else 0])
    size = nodes[-1].meta.get("val") if isinstance(nodes[-1], fx.Node) else None
    return (size, nodes[1].args[1]) if isinstance(size, torch.SymInt) else None


def condition_nodes(words: str) -> tuple[fx.Node, fx.Node]:
    """What stands for a condition, and an operation that fails with these words if it is false."""
    graph = fx.Graph()
    condition = graph.placeholder("condition")
    check = graph.call_function(
        torch.ops.aten._assert_async.msg, (condition, f"expected {words}, which it is not")
    )
    return condition, check


def keep_asserts(graph: Any, before: int) -> None:
    """Note in a graph what tracing took for granted of sizes that follow from values.

    Args:
        graph: What was traced, in the fake tensor mode that is on.
        before: What `count_asserts` gave before it.
    """
    graph.meta[_ASSERTS] = tuple(_all_asserts())[before:]


def count_asserts() -> int:
    """How many there are so far in the fake tensor mode that is on."""
    return len(tuple(_all_asserts()))


def asserts_in(graph: Any) -> int:
    """How many a graph has."""
    return len(graph.meta.get(_ASSERTS, ()))


def _all_asserts() -> Iterator[Any]:
    from torch._guards import active_fake_mode

    mode: Any = active_fake_mode()
    if mode is not None and mode.shape_env is not None:
        for found in mode.shape_env.deferred_runtime_asserts.values():
            yield from (one.expr for one in found)


@dataclass(frozen=True)
class Condition:
    """Something that tracing took for granted of sizes that follow from values.

    Attributes:
        words: In words.
        relation: ``==`` or the like; None if it is more than a relation of two sizes.
        left: One size.
        right: The other one.
        in_general: Whether it holds of all sizes but 0 and 1.
    """

    words: str
    relation: str | None
    left: Terms
    right: Terms
    in_general: bool


def conditions_of(graph: Any, same: Mapping[str, str]) -> Iterator[Condition]:
    """What a graph takes for granted of sizes, and nobody knows.

    Args:
        graph: As `keep_asserts` left it.
        same: For each symbol of the graph the first one that has its value.
    """
    import sympy

    for expression in graph.meta.get(_ASSERTS, ()):
        for one in sympy.And.make_args(expression):
            names = {
                symbol: sympy.Symbol(
                    same.get(str(symbol), str(symbol)), integer=True, nonnegative=True
                )
                for symbol in one.free_symbols
            }
            left = sympy.simplify(one.subs(names))
            if left == sympy.true:
                continue
            sides: tuple[Any, ...] = getattr(left, "args", ())
            relation = getattr(left, "rel_op", None)
            one_side = _terms(sides[0]) if relation else None
            other_side = _terms(sides[1]) if relation else None
            yield Condition(
                f"{sides[0]} {relation} {sides[1]}" if relation else str(left),
                None if one_side is None or other_side is None else relation,
                one_side or (),
                other_side or (),
                in_general(left) == sympy.true,
            )
