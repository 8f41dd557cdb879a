# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   shop.conv@2.0.0: conv
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

class _Conv(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "batch channels height width"],
    ) -> Float32[Array, "batch channels height-2 width-2"]:
        """Contract shop.conv@2.0.0."""
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "batch channels height width"],
    ) -> Float32[Tensor, "batch channels height-2 width-2"]: ...

conv: _Conv
"""Contract shop.conv@2.0.0."""
