"""The signature of a contract as a person would write it, one part a line."""

from __future__ import annotations

from collections.abc import Iterator

from ...spec.array_tree import Node
from ...spec.language.frozen_mapping import FrozenDict
from ...spec.language.static_arguments import StaticSpec
from ...spec.language.wording import escaped
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec

_INDENT = "    "


def signature(spec: CallableSpec) -> str:
    """Such as ``f(x: float32[n], *, causal=False) -> y: float32[n]``, over several lines."""
    parameters = [line for name, node in spec.inputs.items() for line in _input(name, node)]
    if spec.static:
        parameters += ["*,", *(_static(name, one) for name, one in spec.static.items())]
    head = spec.name.rpartition(".")[2]
    inside = "".join(f"\n{_INDENT}{line}" for line in parameters)
    # chr(10), since before Python 3.12 no backslash may stand inside the braces.
    return f"{head}({inside}{chr(10) if inside else ''}) -> {_outputs(spec)}"


def _static(name: str, static: StaticSpec) -> str:
    kind = f": {static.type}" if static.type else ""
    if static.required:
        return f"{name}{kind},"
    return f"{name}{kind} = {static.default!r}," if kind else f"{name}={static.default!r},"


def _input(name: str, node: Node) -> Iterator[str]:
    *lines, last = _lines(node)
    default = " = None" if isinstance(node, TensorSpec) and node.optional else ""
    first = f"{name}: "
    for line in lines:
        yield first + line
        first = ""
    yield f"{first}{last}{default},"


def _outputs(spec: CallableSpec) -> str:
    if len(spec.outputs) == 1:
        ((name, node),) = spec.outputs.items()
        return f"{name}: " + "\n".join(_lines(node))
    return "\n".join(_lines(spec.outputs))


def _lines(node: Node) -> list[str]:
    if isinstance(node, TensorSpec):
        return [str(node)]
    if isinstance(node, FrozenDict):
        children = [(_key(name, child), child) for name, child in node.items()]
        return _enclosed("{", children, "}")
    return _enclosed("[", [("", child) for child in node], "]")


def _key(name: str, child: Node) -> str:
    optional = isinstance(child, TensorSpec) and child.optional
    shown = name if name.isidentifier() else f'"{escaped(name)}"'
    return f"{shown}{'?' if optional else ''}: "


def _enclosed(opening: str, children: list[tuple[str, Node]], closing: str) -> list[str]:
    if not children:
        return [opening + closing]
    lines = [opening]
    for key, child in children:
        *before, last = _lines(child)
        prefix = key
        for line in before:
            lines.append(f"{_INDENT}{prefix}{line}")
            prefix = ""
        lines.append(f"{_INDENT}{prefix}{last},")
    return [*lines, closing]
