"""JAX's symbolic dimensions (`jax.export.symbolic_shape`). Tried on jax 0.10.2 and 0.12.0."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.export import SymbolicScope, symbolic_shape


def symbols_in(shapes: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The dimension variables of some shapes, by name."""
    found: dict[str, Any] = {}
    for shape in shapes:
        for size in shape:
            if not isinstance(size, int):
                for name in sorted(size._get_vars() - found.keys()):
                    # Of the same scope, or the two could not be computed with together.
                    (found[name],) = symbolic_shape(name, scope=size.scope)
    return found


def constraints_of(shapes: Sequence[Sequence[Any]]) -> list[str]:
    """What is said of the dimension variables of some shapes, as `symbolic_shape` takes it."""
    found = [size.scope for shape in shapes for size in shape if not isinstance(size, int)]
    # The shapes of a call are of one scope: JAX computes with all of them.
    return [str(one.debug_str) for one in found[0]._explicit_constraints] if found else []


def allows(constraints: Sequence[str], values: Mapping[str, int]) -> bool:
    """Whether these numbers meet what is said of the dimension variables.

    Args:
        constraints: As `constraints_of` gives them.
        values: A number for each variable. What is said of others, which the same scope may have,
            is left alone.
    """
    return all(_holds(text, values) for text in constraints)


def shapes_of_texts(texts: Sequence[str], constraints: Sequence[str]) -> list[tuple[Any, ...]]:
    """Symbolic shapes of which equal names are the same size.

    Raises:
        ValueError: A text is no shape, or no constraint.
    """
    scope = SymbolicScope(tuple(constraints))
    return [tuple(symbolic_shape(text, scope=scope)) for text in texts]


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}


def substitute(size: Any, values: Mapping[str, Any], calls: Mapping[str, Any] | None = None) -> Any:
    """A dimension with something else in place of its variables.

    By its text, since JAX would make its numbers numpy's, which know no symbols of torch.

    Args:
        size: A number or a symbolic dimension.
        values: What stands for each variable.
        calls: What stands for ``floordiv``, ``mod``, ``max`` and ``min``; None for Python's own,
            where numbers stand for the variables.
    """

    known = _CALLS_OF_NUMBERS if calls is None else calls
    return size if isinstance(size, int) else _value(_parsed(str(size)), values, known)


def _parsed(text: str) -> Any:
    return ast.parse(text.replace("^", "**"), mode="eval").body


def _value(node: Any, values: Mapping[str, Any], calls: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.Call):
        given = [_value(one, values, calls) for one in node.args]
        return calls[node.func.id](*given)  # type: ignore[attr-defined]
    operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
    return _OPERATORS[type(node.op)](*(_value(one, values, calls) for one in operands))


_COMPARISONS: dict[type, Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
}
_CALLS_OF_NUMBERS: dict[str, Any] = {
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "max": max,
    "min": min,
}


def _holds(constraint: str, values: Mapping[str, int]) -> bool:
    node = _parsed(constraint)
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    if not names - _CALLS_OF_NUMBERS.keys() <= values.keys():
        return True
    left, right = (_value(one, values, _CALLS_OF_NUMBERS) for one in (node.left, *node.comparators))
    return _COMPARISONS[type(node.ops[0])](left, right)
