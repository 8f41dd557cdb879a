"""The contract of one torch function, validated and frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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

from ..choices import ConcurrencyMode, Residuals, VmapMethod
from ..dotted_names import in_both
from .array_tree import Leaves, Node, leaves_of, read_tree, to_ordered_data
from .bounded_sizes import (
    Bound,
    as_padded,
    as_returned,
    bounds_of,
    counts_of,
    faults_of_bounds,
    faults_of_inputs,
)
from .execution import Execution
from .followed_dtypes import choices_of, faults_of_following
from .group_remarks import faults_of_groups, read_groups
from .language.constraints import Constraint
from .language.frozen_mapping import FrozenDict
from .language.parsed_field import ReadBy
from .language.problems import Fault, Path, fault, raise_faults
from .language.static_arguments import Scalar, StaticSpec, read_statics
from .language.wording import show
from .names_between_fields import (
    faults_of_arguments,
    faults_of_constraints,
    faults_of_dimensions,
    faults_of_expressions,
)
from .plain_fields import (
    read_constraints,
    read_dimensions,
    read_function,
    read_name,
    read_names,
    read_sharding,
    read_version,
)
from .source_positions import Positions
from .tensor import TensorSpec

__all__ = ["CallableSpec", "FrozenDict", "Node", "Scalar", "TensorSpec"]


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
        static: The other arguments by name, with their types and defaults.
        outputs: The arrays that come back, by name.
        groups: Remarks on groups and lists of arrays, by paths such as `inputs.params`.
        dimensions: Remarks on dimension names.
        constraints: Comparisons of dimensions that every call must meet.
        vjp_depth: The highest order of reverse differentiation a caller may take, or None.
        residuals: Whether torch keeps its record of the forward (``tape``), or the backward runs
            the function again (``recompute``).
        vmap_method: What ``jax.vmap`` does.
        verify: Whether the first batched run of a plan is compared with single calls.
        sharding: Dimension name -> mesh axis; the other dimensions must be whole.
        mutates: Inputs that the function writes to.
        copies: Inputs of which the function gets a copy of its own, since it writes to them.
        random: Whether every call takes a JAX random key, as ``rng=``.
        execution: How the function is run.
        concurrency: How calls on several devices share the function's modules, or None: as is best.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The order counts: the check of a field sees those above it, and no others.
    schema_id: Literal["jaxtorch/1"] = Field(alias="schema")
    name: Annotated[StrictStr, AfterValidator(read_name)]
    version: Annotated[str, BeforeValidator(read_version)]
    function: Annotated[StrictStr, AfterValidator(read_function)] | None = None
    doc: StrictStr | None = None
    inputs: Annotated[FrozenDict[str, Node], ReadBy(read_tree)]
    static: Annotated[FrozenDict[str, StaticSpec], ReadBy(read_statics)] = FrozenDict()
    outputs: Annotated[FrozenDict[str, Node], ReadBy(read_tree)]
    groups: Annotated[FrozenDict[str, str], ReadBy(read_groups)] = FrozenDict()
    dimensions: Annotated[FrozenDict[str, str], ReadBy(read_dimensions)] = FrozenDict()
    constraints: Annotated[tuple[Constraint, ...], ReadBy(read_constraints)] = ()
    vjp_depth: Annotated[StrictInt, Field(ge=0)] | None = None
    residuals: Residuals = "auto"
    vmap_method: VmapMethod = "torch_vmap"
    verify: StrictBool = False
    sharding: Annotated[FrozenDict[str, str], ReadBy(read_sharding)] = FrozenDict()
    mutates: Annotated[tuple[str, ...], ReadBy(read_names)] = ()
    copies: Annotated[tuple[str, ...], ReadBy(read_names)] = ()
    random: Literal["none", "key"] = "none"
    execution: Execution = Execution()
    concurrency: ConcurrencyMode | None = None

    _positions: Positions | None = PrivateAttr(None)

    # The checks below compare with `inputs`, which is absent from `info.data` when it is itself
    # at fault; its own problems are reported then.

    @field_validator("inputs")
    @classmethod
    def _inputs_agree(cls, inputs: FrozenDict[str, Node]) -> FrozenDict[str, Node]:
        leaves = leaves_of(inputs)
        raise_faults(
            [
                *faults_of_expressions(leaves),
                *faults_of_following(leaves, leaves),
                *faults_of_inputs(leaves),
            ]
        )
        return inputs

    @field_validator("outputs")
    @classmethod
    def _outputs_come_back(
        cls, outputs: FrozenDict[str, Node], info: ValidationInfo
    ) -> FrozenDict[str, Node]:
        leaves = leaves_of(outputs)
        if not leaves:
            raise fault("at least one output", "none")
        raise_faults(
            Fault("an output that always comes back", "true", (*path, "optional"))
            for path, leaf in leaves
            if leaf.optional
        )
        if "inputs" in info.data:
            inputs = leaves_of(info.data["inputs"])
            raise_faults([*faults_of_following(leaves, inputs), *faults_of_bounds(leaves, inputs)])
        return outputs

    @field_validator("static")
    @classmethod
    def _static_is_no_input(
        cls, static: FrozenDict[str, StaticSpec], info: ValidationInfo
    ) -> FrozenDict[str, StaticSpec]:
        raise_faults(
            Fault("a name that is not also an input", show(name), (name,), at_key=True)
            for name in static
            if name in info.data.get("inputs", ())
        )
        return static

    @field_validator("groups")
    @classmethod
    def _described_groups_exist(
        cls, groups: FrozenDict[str, str], info: ValidationInfo
    ) -> FrozenDict[str, str]:
        if "inputs" in info.data and "outputs" in info.data:
            raise_faults(faults_of_groups(groups, info.data["inputs"], info.data["outputs"]))
        return groups

    @field_validator("dimensions")
    @classmethod
    def _described_dimensions_exist(
        cls, dimensions: FrozenDict[str, str], info: ValidationInfo
    ) -> FrozenDict[str, str]:
        if "inputs" in info.data and "outputs" in info.data:
            known = (info.data["inputs"], info.data["outputs"])
            raise_faults(faults_of_dimensions(dimensions, *known))
        return dimensions

    @field_validator("constraints")
    @classmethod
    def _constrained_dimensions_exist(
        cls, constraints: tuple[Constraint, ...], info: ValidationInfo
    ) -> tuple[Constraint, ...]:
        if "inputs" in info.data:
            raise_faults(faults_of_constraints(constraints, info.data["inputs"]))
        return constraints

    @field_validator("sharding")
    @classmethod
    def _sharded_dimensions_exist(
        cls, sharding: FrozenDict[str, str], info: ValidationInfo
    ) -> FrozenDict[str, str]:
        if "inputs" in info.data:
            raise_faults(faults_of_dimensions(sharding, info.data["inputs"]))
        return sharding

    @field_validator("mutates")
    @classmethod
    def _mutated_inputs_exist(
        cls, mutates: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        if "inputs" in info.data:
            raise_faults(faults_of_arguments(mutates, info.data["inputs"]))
        return mutates

    @field_validator("copies")
    @classmethod
    def _copied_inputs_exist(cls, copies: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "inputs" in info.data:
            raise_faults(faults_of_arguments(copies, info.data["inputs"]))
        both = in_both(copies, info.data.get("mutates", ()))
        raise_faults(
            Fault(
                "an input whose new value does not come back",
                f"{show(name)}, which is under `mutates`",
                (str(index),),
            )
            for index, name in enumerate(copies)
            if name in both
        )
        return copies

    @field_validator("random")
    @classmethod
    def _key_has_a_name_of_its_own(cls, random: str, info: ValidationInfo) -> str:
        taken = {**info.data.get("inputs", {}), **info.data.get("static", {})}
        if random == "key" and "rng" in taken:
            raise fault("no input or static argument `rng`, by which a call passes its key", "one")
        return random

    @property
    def label(self) -> str:
        """Name and version, such as ``attention@2.1.0``."""
        return f"{self.name}{self.at_version}"

    @property
    def at_version(self) -> str:
        """The version, as it stands behind a name: ``@2.1.0``."""
        return f"@{self.version}"

    @property
    def unread(self) -> tuple[tuple[str, str], ...]:
        """What it leaves open, with reasons; only contracts in annotations leave anything open."""
        return ()

    @property
    def complete(self) -> bool:
        """Whether it speaks of every argument; calls of others it refuses."""
        return True

    def input_leaves(self) -> Leaves:
        """All input arrays with their paths, such as ``("params", "conv", "weight")``."""
        return self._input_leaves

    def output_leaves(self) -> Leaves:
        """All output arrays with their paths, in the contract's order, as they come back.

        A dimension with a bound has the size of the bound.
        """
        return self._output_leaves

    @cached_property
    def results(self) -> FrozenDict[str, Node]:
        """The outputs as they come back: `outputs`, with bounds in the place of dimensions."""
        return as_padded(self.outputs, self.bounds)

    @cached_property
    def returned(self) -> FrozenDict[str, Node]:
        """The outputs as torch returns them: without counts, and with dimensions as names."""
        return as_returned(self.outputs, self.counts)

    def returned_leaves(self) -> Leaves:
        """All arrays that torch returns with their paths."""
        return leaves_of(self.returned)

    @cached_property
    def bounds(self) -> Mapping[str, Bound]:
        """The dimensions of outputs that have a bound, by name."""
        return bounds_of(leaves_of(self.outputs))

    @cached_property
    def counts(self) -> Mapping[Path, str]:
        """The outputs that are the size of such a dimension, with its name."""
        return counts_of(leaves_of(self.outputs), self.bounds)

    def dtypes_of(self, leaf: TensorSpec) -> tuple[str, ...]:
        """Every dtype that an input or output may have; that of an input it follows, if it does."""
        return choices_of(leaf, self._input_leaves)

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
            and (value := getattr(self, field)) != _DEFAULTS.get(field)
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
        for name in _WORKED_OUT:
            copy.__dict__.pop(name, None)
        return copy

    @cached_property
    def _input_leaves(self) -> Leaves:
        return leaves_of(self.inputs)

    @cached_property
    def _output_leaves(self) -> Leaves:
        return leaves_of(self.results)

    @cached_property
    def _identity(self) -> str:
        return self._canonical(docs=True)

    def _canonical(self, *, docs: bool) -> str:
        import json  # not needed until contracts are compared

        # Text tells 1 from 1.0 and true, which Python calls equal. Built from what differs from
        # the defaults, so that a later release with one more field keeps today's digests.
        data = self.to_dict()
        if not docs:
            for remarks in ("doc", "groups", "dimensions"):
                data.pop(remarks, None)
        if self.static:
            data["static"] = {name: one.to_data(docs=docs) for name, one in self.static.items()}
        data["inputs"] = to_ordered_data(self.inputs, docs=docs)
        data["outputs"] = to_ordered_data(self.outputs, docs=docs)
        if self.constraints:
            data["constraints"] = [one.to_data(docs=docs) for one in self.constraints]
        if self.mutates:
            data["mutates"] = list(self.mutates)  # in their order the new values come back
        if self.copies:
            data["copies"] = sorted(self.copies)
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    # pydantic's own would also compare the positions, and call 1 and true the same.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallableSpec) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


_WORKED_OUT = (
    *("_input_leaves", "_output_leaves", "_identity"),
    *("bounds", "counts", "results", "returned"),
)
_DEFAULTS = {
    name: info.default for name, info in CallableSpec.model_fields.items() if not info.is_required()
}


def _plain(value: Any) -> Any:
    if isinstance(value, Execution):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, FrozenDict):
        return {name: _plain(child) for name, child in value.items()}
    if isinstance(value, (TensorSpec, StaticSpec, Constraint)):
        return value.to_data()
    return [_plain(child) for child in value] if isinstance(value, tuple) else value
