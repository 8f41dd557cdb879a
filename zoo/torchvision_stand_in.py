"""What timm imports of torchvision, where that is not installed or was built for another torch.

Models need one layer of it; the rest are names of transforms and datasets that nothing here calls.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

import torch


class FrozenBatchNorm2d(torch.nn.Module):
    """Batch norm with fixed statistics and scales.

    Input and output: ``(batch, num_features, height, width)``. As ``torchvision.ops.misc``.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        """A layer for this many channels."""
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((num_features,), float(value)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift each channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class _Module(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "FrozenBatchNorm2d":
            return FrozenBatchNorm2d
        # A class, since code takes them for bases and default values.
        made = _Class(name, (), {"__init__": _missing})
        setattr(self, name, made)
        return made


class _Class(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name.lower()  # a member of an enumeration


def _missing(self: Any, *args: Any, **kwargs: Any) -> None:
    raise ImportError(f"{type(self).__name__} needs torchvision, which is not installed")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install() -> None:
    """Let ``import torchvision`` find this, if there is no other."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Finder())
