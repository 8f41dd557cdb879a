"""What stands in jaxtyping's annotations. Tried on jaxtyping 0.3.11.

jaxtyping is not imported here: where nobody has, there are no such annotations.
"""

from __future__ import annotations

from typing import Any


def is_array_annotation(annotation: Any) -> bool:
    """Whether it has the form ``Float32[torch.Tensor, "batch dim"]``."""
    kind = type(annotation)
    return kind.__name__ == "_MetaAbstractArray" and kind.__module__.startswith("jaxtyping.")


def dtypes_of(annotation: Any) -> tuple[str, ...] | None:
    """The names of its dtypes; None for any."""
    found = annotation.dtypes
    return tuple(map(str, found)) if isinstance(found, (tuple, list)) else None


def dimensions_of(annotation: Any) -> str:
    """Its dimensions, with spaces between."""
    return str(annotation.dim_str)
