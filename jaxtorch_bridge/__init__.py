"""Call PyTorch code from JAX programs without copies.

The names below are loaded at first use, so that tools that read contracts start without
importing jax or torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    # `name as name` is how type checkers know what a module exports.
    from .calling.exporting import ffi_target_names as ffi_target_names
    from .calling.jax_callable import JaxCallable as JaxCallable
    from .calling.pytrees.tree_transfer import tree_j2t as tree_j2t
    from .calling.pytrees.tree_transfer import tree_t2j as tree_t2j
    from .config import settings as settings
    from .decorator import jax_callable as jax_callable
    from .errors import ArgumentError as ArgumentError
    from .errors import BackendError as BackendError
    from .errors import BatchingError as BatchingError
    from .errors import BridgeError as BridgeError
    from .errors import BridgeWarning as BridgeWarning
    from .errors import ConcurrencyError as ConcurrencyError
    from .errors import DifferentiationError as DifferentiationError
    from .errors import DtypeError as DtypeError
    from .errors import DynamicSizeError as DynamicSizeError
    from .errors import EscapeError as EscapeError
    from .errors import ExportError as ExportError
    from .errors import ModuleError as ModuleError
    from .errors import MutationError as MutationError
    from .errors import OutputError as OutputError
    from .errors import PlanningError as PlanningError
    from .errors import RandomnessError as RandomnessError
    from .errors import ShardingError as ShardingError
    from .errors import SpecError as SpecError
    from .errors import SpecMismatchError as SpecMismatchError
    from .errors import SpecProblem as SpecProblem
    from .errors import StaleClosureError as StaleClosureError
    from .errors import StreamOrderError as StreamOrderError
    from .errors import TorchExecutionError as TorchExecutionError
    from .errors import TracedArrayError as TracedArrayError
    from .errors import TransferError as TransferError
    from .modules.from_module import JaxModule as JaxModule
    from .modules.from_module import from_module as from_module
    from .planner.plan import CallPlan as CallPlan
    from .spec.files.load import load_spec as load_spec
    from .spec.model import CallableSpec as CallableSpec
    from .transfer import dtype_j2t as dtype_j2t
    from .transfer import dtype_t2j as dtype_t2j
    from .transfer import j2t as j2t
    from .transfer import t2j as t2j

_ERRORS = (
    "ArgumentError",
    "BackendError",
    "BatchingError",
    "BridgeError",
    "BridgeWarning",
    "ConcurrencyError",
    "DifferentiationError",
    "DtypeError",
    "DynamicSizeError",
    "EscapeError",
    "ExportError",
    "ModuleError",
    "MutationError",
    "OutputError",
    "PlanningError",
    "RandomnessError",
    "ShardingError",
    "SpecError",
    "SpecMismatchError",
    "SpecProblem",
    "StaleClosureError",
    "StreamOrderError",
    "TorchExecutionError",
    "TracedArrayError",
    "TransferError",
)
_HOME = {
    "settings": "config",
    "JaxCallable": "calling.jax_callable",
    "jax_callable": "decorator",
    "JaxModule": "modules.from_module",
    "from_module": "modules.from_module",
    "CallPlan": "planner.plan",
    "ffi_target_names": "calling.exporting",
    "load_spec": "spec.files.load",
    "CallableSpec": "spec.model",
    "dtype_j2t": "transfer",
    "dtype_t2j": "transfer",
    "j2t": "transfer",
    "t2j": "transfer",
    "tree_j2t": "calling.pytrees.tree_transfer",
    "tree_t2j": "calling.pytrees.tree_transfer",
    **dict.fromkeys(_ERRORS, "errors"),
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    # From now on Python finds it without asking here.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
