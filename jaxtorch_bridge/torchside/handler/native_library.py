"""The native module as it was compiled; `native_module` has it ready for use."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType


@functools.cache
def native_library() -> ModuleType:
    """The compiled module `jaxtorch_bridge._native`.

    Raises:
        ImportError: It was not built.
    """
    try:
        return importlib.import_module("jaxtorch_bridge._native")
    except ImportError as error:
        raise ImportError(
            "jaxtorch_bridge's native module is missing: it is built when the package is "
            "installed (`make setup`, or `pip install .` in the repository)."
        ) from error
