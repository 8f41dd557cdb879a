# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   shop.dense@2.0.0: dense
# ruff: noqa
# fmt: off
# pyright: reportIncompleteStub=false

from typing import Any, overload
from jax import Array
from jaxtorch_bridge import JaxCallable
from jaxtyping import Float32
from torch import Tensor

# What the contracts do not speak of.
def __getattr__(name: str) -> Any: ...

class _Dense(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "... n"],
        w: Float32[Array, "n m"],
    ) -> Float32[Array, "... m"]:
        """A package with contracts of its own and below it.

        Contract shop.dense@2.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "... n"],
        w: Float32[Tensor, "n m"],
    ) -> Float32[Tensor, "... m"]: ...

dense: _Dense
"""A package with contracts of its own and below it.

Contract shop.dense@2.0.0.
"""
