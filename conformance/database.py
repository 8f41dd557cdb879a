"""Torch's own database of operators, by which torch tests itself.

It is an internal: where it stands, and what importing it does to a process, may change with any
release. So it is imported by the script and by its workers alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

# Of each kind of numbers one. What JAX has beside these differs by size alone.
DTYPES = ("float32", "float64", "bfloat16", "complex64", "int64")
# What a backend with code of its own is tried in as well.
MORE_DTYPES = ("int32", "bool")


@cache
def entries() -> dict[str, Any]:
    """The entries (``OpInfo``) by name, a variant's name behind a dot, in alphabetic order.

    Raises:
        ImportError: Torch has it elsewhere, or something that it imports is missing.
    """
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        raise ImportError(
            "expected the database of operators in "
            f"torch.testing._internal.common_methods_invocations; torch {torch.__version__} says: "
            f"{error}. It is an internal of torch's (tried on 2.13.0), and needs expecttest, which "
            "the extra `test` brings."
        ) from error
    return dict(sorted((entry.full_name, entry) for entry in op_db))


def has_dtype(entry: Any, dtype: str) -> bool:
    """Whether torch has the operator for this dtype on the CPU."""
    return getattr(torch, dtype) in entry.supported_dtypes("cpu")
