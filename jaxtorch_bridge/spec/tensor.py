"""One array of a contract: shape, dtype and what may be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .language.array_dtype import Dtype, differentiable_by_default, read_dtype
from .language.parsed_field import ReadBy
from .language.problems import Fault, fault, raise_faults
from .language.shapes import (
    Bounded,
    Dimension,
    Rest,
    Shape,
    ShapeSyntaxError,
    Size,
    parse_dimension,
    parse_shape,
)
from .language.wording import quote, show

# Fields that only outputs have.
OUTPUTS_ALONE = ("fill", "overflow", "counts")


def _read_shape(value: object) -> Shape:
    if isinstance(value, Shape):
        return value
    try:
        if isinstance(value, str):
            return parse_shape(value)
    except ShapeSyntaxError as error:
        raise fault(error.expected, error.found) from None
    if not isinstance(value, (list, tuple)):
        raise fault('a shape, such as "[batch, 3]"', show(value))
    return _read_listed_shape(list(value))


def _read_listed_shape(values: list[object]) -> Shape:
    dimensions: list[Dimension | Bounded] = []
    faults = []
    for index, value in enumerate(values):
        try:
            dimension = _read_dimension(value)
        except ShapeSyntaxError as error:
            faults.append(Fault(error.expected, error.found, (str(index),)))
            continue
        # In text the parser sees to that; here it reads one dimension at a time.
        if isinstance(dimension, Rest) and dimension in dimensions:
            faults.append(Fault("`...` at most once in a shape", "another `...`", (str(index),)))
        dimensions.append(dimension)
    raise_faults(faults)
    return Shape.of(dimensions)


def _read_dimension(value: object) -> Dimension | Bounded:
    # True is an int in Python, but no size. The limit is that of sizes in text.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return Size(value)
    if isinstance(value, str):
        return parse_dimension(value)
    raise ShapeSyntaxError("a dimension name, a size of 0 or more, or `...`", show(value), 1)


def _read_shorthand(text: str) -> dict[str, Any]:
    bracket = text.find("[")
    if bracket < 0 or not text[:bracket].strip():
        raise fault("a dtype and a shape, such as `float32[batch, 3]` or `float32[]`", quote(text))
    try:
        shape = parse_shape(text, bracket)
    except ShapeSyntaxError as error:
        raise fault(error.expected, error.found) from None
    return {"dtype": read_dtype(text[:bracket].strip()), "shape": shape}


class TensorSpec(BaseModel):
    """One array: ``float32[batch, 3]``, ``like x[batch]`` or a mapping with these fields.

    Attributes:
        shape: The dimensions.
        dtype: One dtype, several to choose from, or that of an input.
        differentiable: Whether gradients flow through it; by default where the dtype allows it.
        optional: Whether a call may leave it out (inputs only).
        fill: What stands behind the values where a dimension has a bound (outputs only); 0.
        overflow: What more values than a bound are: an ``error``, or ``cut`` off (outputs only);
            for all outputs with that dimension.
        counts: The dimension with a bound whose size this output is (outputs only). Torch does not
            return it. An integer ``count`` does so by itself, if there is one bound.
        doc: A remark for readers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Annotated[Dtype, ReadBy(read_dtype)]
    shape: Annotated[Shape, ReadBy(_read_shape)]
    differentiable: StrictBool = False
    optional: StrictBool = False
    fill: StrictBool | StrictInt | StrictFloat | None = None
    overflow: Literal["error", "cut"] | None = None
    counts: StrictStr | None = None
    doc: StrictStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_shorthand(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = _read_shorthand(data)
        # The default depends on the dtype, which a field's own default cannot.
        if isinstance(data, Mapping) and "differentiable" not in data:
            return {**data, "differentiable": differentiable_by_default(data.get("dtype"))}
        return data

    @field_validator("differentiable")
    @classmethod
    def _has_tangents(cls, value: bool, info: ValidationInfo) -> bool:
        # None where the dtype is at fault itself, which is reported then.
        dtype = info.data.get("dtype")
        if value and dtype is not None and not dtype.differentiable:
            raise fault(
                "a float or complex dtype, or `differentiable: false`", f"true with {dtype}"
            )
        return value

    def __str__(self) -> str:
        return f"{self.dtype}{self.shape}"

    def to_data(self, *, docs: bool = True) -> str | dict[str, Any]:
        """The array as a contract writes it: the shorthand if that says all."""
        data: dict[str, Any] = {}
        if self.differentiable != self.dtype.differentiable:
            data["differentiable"] = self.differentiable
        if self.optional:
            data["optional"] = True
        for field in OUTPUTS_ALONE:
            if getattr(self, field) is not None:
                data[field] = getattr(self, field)
        if docs and self.doc is not None:
            data["doc"] = self.doc
        # In the shorthand a shape begins at the first bracket.
        if data or "[" in (self.dtype.like or ""):
            return {"shape": str(self.shape), "dtype": self.dtype.to_data(), **data}
        return str(self)
