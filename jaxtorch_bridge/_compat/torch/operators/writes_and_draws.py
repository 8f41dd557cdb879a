"""What ATen ops write to and draw, by their schemas. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

# Ops that update running statistics in place, which their schemas do not say.
UPDATES_STATISTICS = (
    "aten::native_batch_norm",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
    "aten::instance_norm",
)
_STATISTICS = ("running_mean", "running_var")


def written_arguments(
    function: Any, arguments: Sequence[Any], keywords: dict[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an ATen op writes to, by its schema."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return
    if schema.name in UPDATES_STATISTICS:
        named = _named(schema, arguments, keywords)
        # In evaluation they are only read.
        if named.get("training") or named.get("train"):
            yield from (named[name] for name in _STATISTICS if named.get(name) is not None)
    if not schema.is_mutable:
        return
    for position, declared in enumerate(schema.arguments):
        if declared.alias_info is None or not declared.alias_info.is_write:
            continue
        value = arguments[position] if position < len(arguments) else keywords.get(declared.name)
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, torch.Tensor))


def updates_statistics(function: Any) -> bool:
    """Whether an ATen op updates running statistics, which autograd never records."""
    schema = getattr(function, "_schema", None)
    return schema is not None and schema.name in UPDATES_STATISTICS


def draws_random_numbers(function: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> bool:
    """Whether an ATen op reads torch's random generator."""
    if torch.Tag.nondeterministic_seeded not in getattr(function, "tags", ()):
        return False
    named = _named(function._schema, arguments, keywords)
    # Fused attention and dropout carry the tag also where they drop nothing.
    return named.get("dropout_p", named.get("p", 1)) != 0 and named.get("train", True) is not False


def own_generator(arguments: Sequence[Any], keywords: dict[str, Any]) -> torch.Generator | None:
    """The generator that an ATen op is given, if any."""
    found = keywords.get("generator")
    if found is None:
        found = next((value for value in arguments if isinstance(value, torch.Generator)), None)
    return found


def drawn_shape(result: Any) -> tuple[int, ...]:
    """The shape of what such an op gives: of its first result."""
    first = result[0] if isinstance(result, (tuple, list)) else result
    return tuple(first.shape)


def _named(schema: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """An ATen op's arguments by name, defaults included."""
    names = [declared.name for declared in schema.arguments]
    defaults = {
        declared.name: declared.default_value
        for declared in schema.arguments
        if declared.has_default_value()
    }
    return {**defaults, **dict(zip(names, arguments, strict=False)), **keywords}
