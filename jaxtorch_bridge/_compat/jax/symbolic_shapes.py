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


def substitute(size: Any, values: Mapping[str, Any], calls: Mapping[str, Any]) -> Any:
    """A dimension with something else in place of its variables.

    By its text, since JAX would make its numbers numpy's, which know no symbols of torch.

    Args:
        size: A number or a symbolic dimension.
        values: What stands for each variable.
        calls: What stands for ``floordiv``, ``mod``, ``max`` and ``min``.
    """

    def value(node: Any) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.Call):
            return calls[node.func.id](*map(value, node.args))  # type: ignore[attr-defined]
        operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
        return _OPERATORS[type(node.op)](*map(value, operands))

    if isinstance(size, int):
        return size
    return value(ast.parse(str(size).replace("^", "**"), mode="eval").body)
