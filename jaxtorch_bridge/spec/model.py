"""The contract of one torch function, validated and frozen."""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
)

from ..choices import ConcurrencyMode, VmapMethod
from .constraints import Constraint, parse_constraint
from .faults import Fault, fault, raise_faults
from .frozen import FrozenDict
from .nodes import Leaves, Node, leaves_of, paths_of, read_tree, to_ordered_data
from .positions import Positions
from .readby import ReadBy
from .shapes import ShapeSyntaxError, names_in
from .tensor import TensorSpec
from .words import did_you_mean, listed, show

__all__ = ["CallableSpec", "Execution", "FrozenDict", "Node", "Scalar", "TensorSpec"]

Scalar = bool | int | float | str | None

_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){2}")


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))


def _read_name(name: str) -> str:
    if not _is_dotted(name):
        raise fault("a name such as `attention` or `mylib.attention`", show(name))
    return name


def _read_version(value: object) -> str:
    # YAML reads `1` and `1.0` as numbers, and 1.10 would even become 1.1.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise fault('three numbers in quotes, such as "1.0.0"', show(value))
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise fault("a version of three numbers, such as `1.0.0`", show(value))
    return value


def _read_function(target: str) -> str:
    module, colon, qualname = target.partition(":")
    if not (colon and _is_dotted(module) and _is_dotted(qualname)):
        raise fault("`module:function`, such as `mylib.ops:attention`", show(target))
    return target


def _read_static(value: object) -> FrozenDict[str, Scalar]:
    expected = "a default: true, false, a number, a string or null"
    return _read_mapping(value, expected, lambda one: isinstance(one, Scalar))


def _read_sharding(value: object) -> FrozenDict[str, str]:
    expected = "the name of a mesh axis"
    return _read_mapping(value, expected, lambda one: isinstance(one, str) and one != "")


def _read_mapping(
    value: object, expected: str, accepts: Callable[[object], bool]
) -> FrozenDict[str, Any]:
    if not isinstance(value, Mapping):
        raise fault("a mapping", show(value))
    faults = []
    for key, child in value.items():
        if not isinstance(key, str) or not key.isidentifier() or keyword.iskeyword(key):
            faults.append(Fault("an identifier as name", show(key), (str(key),), at_key=True))
        elif not accepts(child):
            faults.append(Fault(expected, show(child), (key,)))
    raise_faults(faults)
    return FrozenDict(value)


def _read_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise fault("a list of input names", show(value))
    faults = []
    seen: set[str] = set()
    for index, name in enumerate(value):
        if not isinstance(name, str):
            faults.append(Fault("the name of an input", show(name), (str(index),)))
        elif name in seen:
            faults.append(Fault("each input once", f"{show(name)} again", (str(index),)))
        else:
            seen.add(name)
    raise_faults(faults)
    return tuple(value)


def _read_constraints(value: object) -> tuple[Constraint, ...]:
    if not isinstance(value, (list, tuple)):
        raise fault("a list of constraints, such as `dim % heads == 0`", show(value))
    faults = []
    constraints = []
    for index, one in enumerate(value):
        if isinstance(one, Constraint):
            constraints.append(one)
            continue
        if not isinstance(one, str):
            expected = "a constraint, such as `dim % heads == 0`"
            faults.append(Fault(expected, show(one), (str(index),)))
            continue
        try:
            constraints.append(parse_constraint(one))
        except ShapeSyntaxError as error:
            faults.append(Fault(error.expected, error.found, (str(index),)))
    raise_faults(faults)
    return tuple(constraints)


def _unbound_expressions(inputs: FrozenDict[str, Node]) -> Iterator[Fault]:
    """Expressions over names that no input's shape can tell."""
    leaves = leaves_of(inputs)
    bound = frozenset(name for _, leaf in leaves for name in leaf.shape.plain_names)
    for path, leaf in leaves:
        for dimension in leaf.shape.dimensions:
            unbound = sorted(names_in(dimension) - bound)
            if unbound:
                expected = "only names that stand alone in the shape of some input"
                yield Fault(expected, f"{listed(unbound)} in `{dimension}`", path)


class Execution(BaseModel):
    """How the torch function is run.

    Attributes:
        backend: What runs it; ``auto`` lets the planner choose.
        outputs: Whether torch writes into XLA's buffers itself or results are copied there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["eager", "compile", "aot", "auto"] = "auto"
    outputs: Literal["in_place", "copy", "auto"] = "auto"


class CallableSpec(BaseModel):
    """What a torch function takes and gives, checked and frozen; equal and hashed by content.

    `jaxtorch_bridge.load_spec` makes one from a file or a dict and reports problems with their
    places; building one directly raises pydantic's ``ValidationError``.

    Attributes:
        schema_id: The contract format (``schema`` in the file).
        name: The callable's name, dots allowed.
        version: Semantic version of the contract.
        function: ``module:function`` of the torch function, if it can be imported.
        doc: A remark for readers.
        inputs: The array arguments by name.
        static: The other arguments by name, with their defaults.
        outputs: The arrays that come back, by name.
        constraints: Comparisons of dimensions that every call must meet.
        vjp_depth: The highest order of reverse differentiation a caller may take, or None.
        residuals: Whether the forward saves what the backward needs.
        vmap_method: What ``jax.vmap`` does.
        verify: Whether the first batched run of a plan is compared with single calls.
        sharding: Dimension name -> mesh axis; the other dimensions must be whole.
        mutates: Inputs that the function writes to.
        random: Whether the function takes a JAX random key.
        execution: How the function is run.
        concurrency: How calls on several devices share the function's modules, or None: as is best.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_id: Literal["jaxtorch/1"] = Field(alias="schema")
    name: Annotated[StrictStr, AfterValidator(_read_name)]
    version: Annotated[str, BeforeValidator(_read_version)]
    function: Annotated[StrictStr, AfterValidator(_read_function)] | None = None
    doc: StrictStr | None = None
    inputs: Annotated[FrozenDict[str, Node], ReadBy(read_tree)]
    static: Annotated[FrozenDict[str, Scalar], ReadBy(_read_static)] = FrozenDict()
    outputs: Annotated[FrozenDict[str, Node], ReadBy(read_tree)]
    constraints: Annotated[tuple[Constraint, ...], ReadBy(_read_constraints)] = ()
    vjp_depth: Annotated[StrictInt, Field(ge=0)] | None = None
    residuals: Literal["save", "recompute", "auto"] = "auto"
    vmap_method: VmapMethod = "torch_vmap"
    verify: StrictBool = False
    sharding: Annotated[FrozenDict[str, str], ReadBy(_read_sharding)] = FrozenDict()
    mutates: Annotated[tuple[str, ...], ReadBy(_read_names)] = ()
    random: Literal["none", "key"] = "none"
    execution: Execution = Execution()
    concurrency: ConcurrencyMode | None = None

    _positions: Positions | None = PrivateAttr(None)

    @field_validator("inputs")
    @classmethod
    def _expressions_are_bound(cls, inputs: FrozenDict[str, Node]) -> FrozenDict[str, Node]:
        raise_faults(_unbound_expressions(inputs))
        return inputs

    @field_validator("outputs")
    @classmethod
    def _outputs_come_back(cls, outputs: FrozenDict[str, Node]) -> FrozenDict[str, Node]:
        leaves = leaves_of(outputs)
        if not leaves:
            raise fault("at least one output", "none")
        raise_faults(
            Fault("an output that always comes back", "true", (*path, "optional"))
            for path, leaf in leaves
            if leaf.optional
        )
        return outputs

    # The checks below compare with `inputs`, which is absent from `info.data` when it is itself
    # at fault; its own problems are reported then.

    @field_validator("static")
    @classmethod
    def _static_is_no_input(
        cls, static: FrozenDict[str, Scalar], info: ValidationInfo
    ) -> FrozenDict[str, Scalar]:
        raise_faults(
            Fault("a name that is not also an input", show(name), (name,), at_key=True)
            for name in static
            if name in info.data.get("inputs", ())
        )
        return static

    @field_validator("constraints")
    @classmethod
    def _constrained_dimensions_exist(
        cls, constraints: tuple[Constraint, ...], info: ValidationInfo
    ) -> tuple[Constraint, ...]:
        if "inputs" in info.data:
            known = _dimension_names(info.data["inputs"])
            raise_faults(
                Fault(_one_of("dimensions of the inputs", name, known), show(name), (str(index),))
                for index, one in enumerate(constraints)
                for name in sorted(one.names - known)
            )
        return constraints

    @field_validator("sharding")
    @classmethod
    def _sharded_dimensions_exist(
        cls, sharding: FrozenDict[str, str], info: ValidationInfo
    ) -> FrozenDict[str, str]:
        if "inputs" in info.data:
            known = _dimension_names(info.data["inputs"])
            raise_faults(
                Fault(_one_of("dimensions", name, known), show(name), (name,), at_key=True)
                for name in sharding
                if name not in known
            )
        return sharding

    @field_validator("mutates")
    @classmethod
    def _mutated_inputs_exist(
        cls, mutates: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        if "inputs" in info.data:
            known = {".".join(path) for path in paths_of(info.data["inputs"])}
            raise_faults(
                Fault(_one_of("inputs", name, known), show(name), (str(index),))
                for index, name in enumerate(mutates)
                if name not in known
            )
        return mutates

    @property
    def label(self) -> str:
        """Name and version, such as ``attention@2.1.0``."""
        return f"{self.name}@{self.version}"

    def input_leaves(self) -> Leaves:
        """All input arrays with their paths, such as ``("params", "conv", "weight")``."""
        return self._input_leaves

    def output_leaves(self) -> Leaves:
        """All output arrays with their paths, in the contract's order."""
        return self._output_leaves

    def where(self, path: str) -> str:
        """The place of a part such as ``inputs.q``: ``specs/attention.yaml:7:6``.

        The nearest part that encloses it, if the file has no such part; the contract's label
        and the path, if it did not come from a file.
        """
        if self._positions is not None:
            return self._positions.where(path)
        return f"contract {self.label}, {path}" if path else f"contract {self.label}"

    def digest(self) -> str:
        """A sha256 in hex of what the contract says, the same in every process.

        File, positions, remarks and the order of keys do not count; the order of inputs and of
        outputs does.
        """
        return hashlib.sha256(self._canonical(docs=False).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The contract as plain data, which `load_spec` reads back; defaults are left out."""
        data = {"schema": self.schema_id, "name": self.name, "version": self.version}
        return data | {
            field: _plain(value)
            for field in type(self).model_fields
            if field not in ("schema_id", "name", "version")
            and ((value := getattr(self, field)) != _DEFAULTS.get(field) or field == "inputs")
        }

    def located(self, positions: Positions) -> CallableSpec:
        """The same contract, which knows from which lines of a file it came."""
        copy = self.model_copy()
        copy._positions = positions
        return copy

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> CallableSpec:
        """A copy, with ``update`` taken as it is (pydantic validates nothing here)."""
        copy = super().model_copy(update=update, deep=deep)
        # What was worked out for the original need not hold for the copy.
        for name in ("_input_leaves", "_output_leaves", "_identity"):
            copy.__dict__.pop(name, None)
        return copy

    @cached_property
    def _input_leaves(self) -> Leaves:
        return leaves_of(self.inputs)

    @cached_property
    def _output_leaves(self) -> Leaves:
        return leaves_of(self.outputs)

    @cached_property
    def _identity(self) -> str:
        return self._canonical(docs=True)

    def _canonical(self, *, docs: bool) -> str:
        import json  # not needed until contracts are compared

        # Text tells 1 from 1.0 and true, which Python calls equal. Built from what differs from
        # the defaults, so that a later release with one more field keeps today's digests.
        data = self.to_dict()
        if not docs:
            data.pop("doc", None)
        data["inputs"] = to_ordered_data(self.inputs, docs=docs)
        data["outputs"] = to_ordered_data(self.outputs, docs=docs)
        if self.mutates:
            data["mutates"] = sorted(self.mutates)
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallableSpec) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


_DEFAULTS = {
    name: info.default for name, info in CallableSpec.model_fields.items() if not info.is_required()
}


def _dimension_names(inputs: FrozenDict[str, Node]) -> frozenset[str]:
    return frozenset(name for _, leaf in leaves_of(inputs) for name in leaf.shape.plain_names)


def _one_of(kind: str, name: str, known: Collection[str]) -> str:
    return f"one of the {kind} {listed(sorted(known))}{did_you_mean(name, known)}"


def _plain(value: Any) -> Any:
    if isinstance(value, Execution):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, FrozenDict):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, TensorSpec):
        return value.to_data()
    if isinstance(value, Constraint):
        return str(value)
    return [_plain(child) for child in value] if isinstance(value, tuple) else value
