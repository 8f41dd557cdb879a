"""The ways to call a function: its parameters in order, its result, its overloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ...spec.array_tree import Node, leaves_of
from ...spec.language.static_arguments import StaticSpec, type_told_by
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec
from .names import Names
from .text import literal
from .trees import Trees, may_be_left_out


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature.

    Attributes:
        name: As in the contract.
        type: What it takes when it is given.
        default: Its default as source, or None if it must be given.
        keyword_only: Whether it stands after the ``*``.
        given: Whether a call of this form has arrays in it for sure.
    """

    name: str
    type: str
    default: str | None
    keyword_only: bool
    given: bool = False

    def __str__(self) -> str:
        if self.default is None:
            return f"{self.name}: {self.type}"
        # Types that take None already.
        taken = self.type == "Any" or self.type.endswith("None") or "None]" in self.type
        optional = " | None" if self.default == "None" and not taken else ""
        return f"{self.name}: {self.type}{optional} = {self.default}"


@dataclass(frozen=True)
class Form:
    """One overload."""

    parameters: tuple[Parameter, ...]
    result: str


def forms_of(spec: CallableSpec, jax: Trees, torch: Trees, *path: str, as_dict: bool) -> list[Form]:
    """The overloads of the function: JAX arrays, then torch tensors.

    Args:
        spec: The contract.
        jax: Makes the types of JAX arrays.
        torch: Makes the types of torch tensors.
        path: Names the dicts.
        as_dict: Whether several outputs come back in a dict.
    """
    key = () if spec.random == "none" else (_key(jax.names),)
    own = Form((*_inputs(spec, jax, path), *key), _result(spec.results, jax, path, as_dict))
    forms = [own]
    if leaves_of(spec.inputs):
        # Without the key: calls on torch tensors take none.
        tensors = Form(_inputs(spec, torch, path), _result(spec.returned, torch, path, as_dict))
        forms += _with_an_array(tensors)
    static = tuple(_static(name, value, jax.names) for name, value in spec.static.items())
    return [Form((*form.parameters, *static), form.result) for form in forms]


def _inputs(spec: CallableSpec, trees: Trees, path: tuple[str, ...]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            name,
            trees.type_of(node, *path, name),
            "None" if may_be_left_out(node) else None,
            keyword_only,
            any(not leaf.optional for _, leaf in leaves_of(node)),
        )
        for (name, node), keyword_only in zip(spec.inputs.items(), _keyword_only(spec), strict=True)
    )


def _keyword_only(spec: CallableSpec) -> Iterator[bool]:
    """For each input, whether only its name tells which one is meant.

    No Python function has a required parameter after an optional one, except by keyword. So
    from such an optional input on the function's order is another one, or there is none.
    """
    optional = [may_be_left_out(node) for node in spec.inputs.values()]
    last_required = max((i for i, one in enumerate(optional) if not one), default=-1)
    out_of_order = False
    for index, one in enumerate(optional):
        out_of_order = out_of_order or (one and index < last_required)
        yield out_of_order


def _with_an_array(form: Form) -> Iterable[Form]:
    """The form, so that a call without any array does not fit.

    Such a call is one of JAX. Where every input may be left out there is one form for each
    input that may be the first tensor.
    """
    parameters = form.parameters
    if any(one.given for one in parameters):
        yield form
        return
    for index, first in enumerate(parameters):
        if first.default is None:  # a group without any array
            continue
        before = [
            one if one.default is None else replace(one, type="None") for one in parameters[:index]
        ]
        here = replace(first, default=None)
        # A required parameter after optional ones can be given by name only.
        by_name = any(one.default is not None for one in before)
        rest = [here, *parameters[index + 1 :]]
        if by_name:
            rest = [replace(one, keyword_only=True) for one in rest]
        yield Form((*before, *rest), form.result)


def _key(names: Names) -> Parameter:
    """The random key, which calls on torch tensors do not take."""
    return Parameter("rng", names.use("Array"), None, keyword_only=True)


def _static(name: str, static: StaticSpec, names: Names) -> Parameter:
    default = None if static.required else literal(static.default)
    return Parameter(name, _static_type(static, names), default, keyword_only=True)


def _static_type(static: StaticSpec, names: Names) -> str:
    if static.choices and not any(isinstance(one, (float, tuple)) for one in static.choices):
        # `Literal` takes no other values.
        choices = ", ".join(map(literal, static.choices))
        return f"{names.use('Literal')}[{choices}]"
    if static.type is not None:
        return " | ".join(_python_type(one, names) for one in static.type.names)
    if static.choices:
        return " | ".join(dict.fromkeys(_type_of(one, names) for one in static.choices))
    return names.use("Any")


def _type_of(value: object, names: Names) -> str:
    told = type_told_by(value)
    if told is not None:
        return _python_type(told.names[0], names)
    some = f"{names.use('Sequence')}[{names.use('Any')}]"
    return "None" if value is None else some


def _python_type(name: str, names: Names) -> str:
    if name.startswith("list["):
        return f"{names.use('Sequence')}[{names.use(name[5:-1])}]"
    return "None" if name == "null" else names.use(name)


def _result(outputs: Mapping[str, Node], trees: Trees, path: tuple[str, ...], as_dict: bool) -> str:
    """What comes back; see docs/stubs.md for the choice.

    The planner goes by name where torch returns a dict with the contract's names, and else by
    position. Only a dict can hold a group by name; arrays and lists are taken for a tuple.
    """
    groups = any(not isinstance(node, (TensorSpec, tuple)) for node in outputs.values())
    if as_dict or groups:
        return trees.dict_of(outputs, *path, "outputs")
    types = [trees.type_of(node, *path, name) for name, node in outputs.items()]
    return types[0] if len(types) == 1 else f"{trees.names.use('tuple')}[{', '.join(types)}]"
