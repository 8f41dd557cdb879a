"""Symbolic sizes of torch, and back to where they came from. Tried on torch 2.13.0."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch

from .dynamo import load


def with_symbolic_sizes() -> Any:
    """Have composite operations evaluated by their Python forms, which take symbols."""
    from torch._dispatch.python import enable_python_dispatcher

    return enable_python_dispatcher()


# What there is in a size besides sums and products.
SIZE_CALLS: dict[str, Any] = {
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "max": torch.sym_max,
    "min": torch.sym_min,
}


class Symbols:
    """A fake tensor mode with a symbol for each of some sizes.

    Args:
        numbers: What each size is taken to be where code asks for it, by name.

    Attributes:
        mode: The mode.
        sizes: The symbols, as sizes of torch.
    """

    def __init__(self, numbers: Mapping[str, int]) -> None:
        load("torch._dynamo")
        from torch._dynamo.source import ConstantSource
        from torch._functorch import config
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.symbolic_shapes import (
            DimDynamic,
            ShapeEnv,
            StatelessSymbolicContext,
        )

        self._shapes = ShapeEnv(
            duck_shape=False, allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True
        )
        with config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
            self.mode: Any = FakeTensorMode(allow_non_fake_inputs=True, shape_env=self._shapes)
        self.sizes: dict[str, Any] = {}
        for name, number in numbers.items():
            hint = torch.empty(number, device="meta")
            context: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
            fake = self.mode.from_tensor(
                hint, symbolic_context=context, source=ConstantSource(f"_jaxtorch_{name}")
            )
            self.sizes[name] = fake.shape[0]

    def fixed(self) -> dict[str, int]:
        """The sizes that the evaluation holds for one number alone, by name."""
        found = {name: self._shapes.replace(size.node.expr) for name, size in self.sizes.items()}
        return {name: int(size) for name, size in found.items() if size.is_number}

    def translate(self, size: Any, sizes: dict[str, Any]) -> Any:
        """A size of a result in other symbols.

        Args:
            size: A number or a symbolic size of torch.
            sizes: What stands for each name.

        Raises:
            ValueError: It follows from something else, such as values.
        """
        if isinstance(size, int):
            return size
        from torch.utils._sympy.interp import sympy_interp
        from torch.utils._sympy.reference import PythonReferenceAnalysis

        expression = self._shapes.replace(size.node.expr)
        known = {symbol.node.expr: sizes[name] for name, symbol in self.sizes.items()}
        if not expression.free_symbols <= known.keys():
            raise ValueError(str(expression))
        return sympy_interp(PythonReferenceAnalysis, known, expression)
