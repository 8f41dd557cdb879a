# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   constants@1.0.0: constants
#   late@1.0.0: late
#   noise@1.0.0: noise
# ruff: noqa
# fmt: off
# pyright: reportIncompleteStub=false
# mypy: disable-error-code=overload-overlap

from typing import Any, NotRequired, TypedDict, overload
from jax import Array
from jaxtorch_bridge import JaxCallable
from jaxtyping import Float32
from torch import Tensor

# What the contracts do not speak of.
def __getattr__(name: str) -> Any: ...

class _Constants(JaxCallable[..., Any]):
    def __call__(
        self,
        /,
        *,
        count: int = 1,
    ) -> Float32[Array, "k"]:
        """Contract constants@1.0.0."""

class _Late(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        first: Float32[Array, "n"],
        *,
        bias: Float32[Array, "n"] | None = None,
        second: Float32[Array, "n"],
    ) -> Float32[Array, "n"]:
        """A required input after an optional one goes by name.

        Contract late@1.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        first: Float32[Tensor, "n"],
        *,
        bias: Float32[Tensor, "n"] | None = None,
        second: Float32[Tensor, "n"],
    ) -> Float32[Tensor, "n"]: ...

class _NoiseGroup(TypedDict):
    low: NotRequired[Float32[Array, ""] | None]

class _NoiseGroupTensors(TypedDict):
    low: NotRequired[Float32[Tensor, ""] | None]

class _Noise(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        like: Float32[Array, "n"] | None = None,
        group: _NoiseGroup | None = None,
        high: Float32[Array, ""] | None = None,
        *,
        count: int = 1,
    ) -> Float32[Array, "k"]:
        """Every input may be left out.

        Contract noise@1.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        like: Float32[Tensor, "n"],
        group: _NoiseGroupTensors | None = None,
        high: Float32[Tensor, ""] | None = None,
        *,
        count: int = 1,
    ) -> Float32[Tensor, "k"]: ...
    @overload
    def __call__(
        self,
        /,
        like: None = None,
        *,
        group: _NoiseGroupTensors,
        high: Float32[Tensor, ""] | None = None,
        count: int = 1,
    ) -> Float32[Tensor, "k"]: ...
    @overload
    def __call__(
        self,
        /,
        like: None = None,
        group: None = None,
        *,
        high: Float32[Tensor, ""],
        count: int = 1,
    ) -> Float32[Tensor, "k"]: ...

constants: _Constants
"""Contract constants@1.0.0."""

late: _Late
"""A required input after an optional one goes by name.

Contract late@1.0.0.
"""

noise: _Noise
"""Every input may be left out.

Contract noise@1.0.0.
"""
