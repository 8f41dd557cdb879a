"""The contract that a function's annotations are.

``def f(x: Float32[torch.Tensor, "batch dim"], *, causal: bool = False)`` says what ``inputs`` and
``static`` would. What no contract can say (sizes that broadcast, a dict of any length) is left out.
Neither jax, torch nor jaxtyping is imported: only the objects that annotations are get looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import dtypes
from ..._compat import jaxtyping_annotations as compat
from ..array_tree import Node
from ..language.array_dtype import read_dtype
from ..language.frozen_mapping import FrozenDict
from ..language.identifiers import is_identifier
from ..language.static_arguments import StaticSpec
from ..tensor import TensorSpec
from .shapes import AnnotatedShapes, NotReadable
from .static_arguments import read_static

_UNIONS = (typing.Union, types.UnionType)
_NO_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass
class Annotations:
    """What a function's annotations say.

    Attributes:
        inputs: The array arguments that they speak of.
        static: The other arguments that they speak of.
        outputs: The results; None if they are not all arrays with shapes.
        unread: Why a parameter is in neither, by its name; ``return`` for the results.
    """

    inputs: dict[str, Node] = field(default_factory=dict)
    static: dict[str, StaticSpec] = field(default_factory=dict)
    outputs: dict[str, Node] | None = None
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def has_arrays(self) -> bool:
        """Whether any of it came from jaxtyping's annotations."""
        return bool(self.inputs or self.outputs)


def read_annotations(function: Callable[..., Any]) -> Annotations:
    """What the annotations of a function, method or partial say; nothing if it has none."""
    found = Annotations()
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins have none
        return found
    names = _names_around(function)
    shapes = AnnotatedShapes()
    for name, parameter in signature.parameters.items():
        try:
            if parameter.kind in _NO_VARIADIC:
                raise NotReadable("any number of arguments")
            _read_parameter(found, name, parameter, _resolved(parameter.annotation, names), shapes)
        except NotReadable as reason:
            found.unread[name] = str(reason)
    try:
        found.outputs = _read_results(_resolved(signature.return_annotation, names), shapes)
    except NotReadable as reason:
        found.unread["return"] = str(reason)
    return found


def _read_parameter(
    found: Annotations,
    name: str,
    parameter: inspect.Parameter,
    annotation: Any,
    shapes: AnnotatedShapes,
) -> None:
    if not is_identifier(name):  # spelled otherwise in the source
        raise NotReadable("a name that no contract can have")
    node = _node(annotation, shapes)
    if node is None:
        found.static[name] = read_static(annotation, parameter.default)
    elif parameter.default is inspect.Parameter.empty:
        found.inputs[name] = node
    elif parameter.default is None:
        found.inputs[name] = _made_optional(node)
    else:
        raise NotReadable("an array with a default")


def _read_results(annotation: Any, shapes: AnnotatedShapes) -> dict[str, Node]:
    node = _node(annotation, shapes)
    if node is None:
        raise NotReadable("no annotation of arrays")
    outputs: dict[str, Node]
    if isinstance(node, FrozenDict):
        outputs = dict(node)
    elif isinstance(node, tuple):
        # Made-up names: the planner takes results without any by their position.
        outputs = {f"out{index}": one for index, one in enumerate(node)}
    else:
        outputs = {"out": node}
    if not outputs or _any_optional(tuple(outputs.values())):
        raise NotReadable("results that need not come back")
    if not all(map(is_identifier, outputs)):
        raise NotReadable("a name that no contract can have")
    return outputs


def _any_optional(node: Node) -> bool:
    if isinstance(node, TensorSpec):
        return node.optional
    return any(map(_any_optional, node.values() if isinstance(node, FrozenDict) else node))


def _node(annotation: Any, shapes: AnnotatedShapes) -> Node | None:
    """The array, group or list that it means; None for anything without arrays."""
    annotation = _unwrapped(annotation)
    if compat.is_array_annotation(annotation):
        return _array(annotation, shapes)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return _union(arguments, shapes)
    if origin in (typing.NotRequired, typing.Required):
        node = _node(arguments[0], shapes)
        return node if node is None or origin is typing.Required else _made_optional(node)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return _list(arguments, shapes)
    if isinstance(annotation, type):
        return _record(annotation, shapes)
    # An argument of `Callable[[...], ...]` is a list, which is no annotation itself.
    if any(_node(one, shapes) is not None for one in arguments if not isinstance(one, list)):
        raise NotReadable("arrays in a container of any length")
    return None


def _array(annotation: Any, shapes: AnnotatedShapes) -> TensorSpec:
    names = compat.dtypes_of(annotation)
    known = (
        tuple(dtypes.DTYPES) if names is None else [one for one in names if one in dtypes.DTYPES]
    )
    if not known:
        raise NotReadable("a dtype that only one side has")
    shape = shapes.read(compat.dimensions_of(annotation))
    return TensorSpec.model_validate({"dtype": read_dtype(list(known)), "shape": shape})


def _union(arguments: tuple[Any, ...], shapes: AnnotatedShapes) -> Node | None:
    others = [one for one in arguments if one is not type(None)]
    nodes = [_node(one, shapes) for one in others]
    if all(node is None for node in nodes):
        return None
    arrays = [node for node in nodes if isinstance(node, TensorSpec)]
    # Arrays that differ in their dtype alone are one array with a choice of it.
    same = len(arrays) == len(nodes) and len({str(one.shape) for one in arrays}) == 1
    node = nodes[0] if len(nodes) == 1 else None
    if same and len(arrays) > 1:
        choices = dict.fromkeys(name for one in arrays for name in one.dtype.choices)
        node = TensorSpec.model_validate(
            {"dtype": read_dtype(list(choices)), "shape": arrays[0].shape}
        )
    if node is None:
        raise NotReadable("a choice between different arrays")
    return node if len(others) == len(arguments) else _made_optional(node)


def _list(arguments: tuple[Any, ...], shapes: AnnotatedShapes) -> tuple[Node, ...] | None:
    nodes = [_node(one, shapes) for one in arguments]
    if all(node is None for node in nodes):
        return None
    if any(node is None for node in nodes):
        raise NotReadable("arrays and other values side by side")
    return tuple(node for node in nodes if node is not None)


def _record(kind: type, shapes: AnnotatedShapes) -> Node | None:
    """A TypedDict, dataclass or named tuple: a group of its fields."""
    fields = dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)
    if not fields and not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        return None
    try:
        # With extras, or `NotRequired` would be taken away.
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception as error:  # a name that is not there, or anything that its code raises
        raise NotReadable(f"`{kind.__name__}` has annotations that do not resolve") from error
    partial = typing.is_typeddict(kind) and not vars(kind)["__total__"]
    nodes = {name: _node(hint, shapes) for name, hint in hints.items()}
    arrays = {name: node for name, node in nodes.items() if node is not None}
    if not arrays:
        return None
    if len(arrays) < len(nodes):
        raise NotReadable(f"`{kind.__name__}` has fields that are no arrays")
    group = FrozenDict(arrays)
    return _made_optional(group) if partial else group


def _made_optional(node: Node) -> Node:
    if isinstance(node, TensorSpec):
        return node.model_copy(update={"optional": True})
    if isinstance(node, FrozenDict):
        return FrozenDict({name: _made_optional(one) for name, one in node.items()})
    return tuple(map(_made_optional, node))


def _unwrapped(annotation: Any) -> Any:
    """Without ``Annotated`` and names of types."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _resolved(annotation: Any, names: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    # One by one: of a whole function, one name that does not resolve would hide all others.
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, dict(names), include_extras=True)["it"]
    except Exception as error:  # a name that is not there, or anything that its code raises
        raise NotReadable(f"`{annotation}` does not resolve") from error


def _names_around(function: Any) -> Mapping[str, Any]:
    """The globals of the code that was annotated, and what it closes over."""
    function = code_of(function)
    if function is None:
        return {}
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
    closed = {}
    for name, cell in cells:
        try:
            closed[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    # What is closed over hides globals of its name, as it does in the function.
    return {**function.__globals__, **closed}


def code_of(function: Any) -> types.FunctionType | None:
    """The Python function behind a partial, method, wrapper or callable object, if there is one."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        function = type(function).__call__
    return function if inspect.isfunction(function) else None
