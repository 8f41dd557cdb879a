# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   attention@1.10.0 (not 1.9.0): attention
#   bounded@1.0.0: bounded
#   noisy@1.0.0: noisy
#   shapes@1.0.0: shapes
# ruff: noqa
# fmt: off
# pyright: reportIncompleteStub=false

from typing import Any, overload
from jax import Array
from jaxtorch_bridge import JaxCallable
from jaxtyping import BFloat16, Bool, Complex64, Float16, Float32, Float64, Float8e4m3fn, Int32, Int64, Shaped, UInt16, UInt8
from torch import Tensor

# What the contracts do not speak of.
def __getattr__(name: str) -> Any: ...

class _Attention(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        q: Float32[Array, "batch heads seq dim"],
        k: Float32[Array, "batch heads keys dim"],
        v: Float32[Array, "batch heads keys dim"],
        mask: Bool[Array, "batch keys"] | None = None,
        *,
        causal: bool = False,
        scale: Any = None,
    ) -> Float32[Array, "batch heads seq dim"]:
        """Scaled dot-product attention over heads.

        Contract attention@1.10.0. Sizes must fit dim%8 == 0.

        Args:
            mask: True where a key may be looked at.
                Left out, all may be.

        Returns:
            out: One row for each query.
        """
    @overload
    def __call__(
        self,
        /,
        q: Float32[Tensor, "batch heads seq dim"],
        k: Float32[Tensor, "batch heads keys dim"],
        v: Float32[Tensor, "batch heads keys dim"],
        mask: Bool[Tensor, "batch keys"] | None = None,
        *,
        causal: bool = False,
        scale: Any = None,
    ) -> Float32[Tensor, "batch heads seq dim"]: ...

class _Bounded(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        boxes: Float32[Array, "n 4"],
        most: Float32[Array, "m"],
    ) -> tuple[Float32[Array, "100 4"], Int64[Array, "100"], Float32[Array, "2*m"], Int32[Array, ""]]:
        """Results whose size follows from values.

        Contract bounded@1.0.0.

        Returns:
            kept: The best boxes.
                `float32[k<=100, 4]`, filled with -1, cut at the bound of `k`.
            places: `int64[k]`, filled with 0, cut at the bound of `k`.
            rows: `float32[rows<=2*m]`, filled with 0.
            count: How many `k` there are.
        """
    @overload
    def __call__(
        self,
        /,
        boxes: Float32[Tensor, "n 4"],
        most: Float32[Tensor, "m"],
    ) -> tuple[Float32[Tensor, "k 4"], Int64[Tensor, "k"], Float32[Tensor, "rows"]]: ...

class _Noisy(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "n"],
        *,
        rng: Array,
        rate: float = 0.5,
    ) -> Float32[Array, "n"]:
        """Draws random numbers from a key.

        Contract noisy@1.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "n"],
        *,
        rate: float = 0.5,
    ) -> Float32[Tensor, "n"]: ...

class _Shapes(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        named: BFloat16[Array, "n m"],
        fixed: Int64[Array, "3 0"],
        any_rank: UInt8[Array, "... n"],
        middle: Float16[Array, "n ... m"],
        scalar: Complex64[Array, ""],
        small: Float8e4m3fn[Array, "n"],
        exponent: Shaped[Array, "n"],
        *,
        flag: bool = True,
        count: int = 2,
        rate: float = 0.001,
        endless: float = ...,
        mode: str = 'it\'s "so"',
        label: Any = None,
    ) -> tuple[Float64[Array, "n+1 n-m 2*n (n+m)*2 n//2 n-(m-1)"], UInt16[Array, "... n"], Bool[Array, ""]]:
        """Every form of a dimension, and every type of a static argument.

        Contract shapes@1.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        named: BFloat16[Tensor, "n m"],
        fixed: Int64[Tensor, "3 0"],
        any_rank: UInt8[Tensor, "... n"],
        middle: Float16[Tensor, "n ... m"],
        scalar: Complex64[Tensor, ""],
        small: Float8e4m3fn[Tensor, "n"],
        exponent: Shaped[Tensor, "n"],
        *,
        flag: bool = True,
        count: int = 2,
        rate: float = 0.001,
        endless: float = ...,
        mode: str = 'it\'s "so"',
        label: Any = None,
    ) -> tuple[Float64[Tensor, "n+1 n-m 2*n (n+m)*2 n//2 n-(m-1)"], UInt16[Tensor, "... n"], Bool[Tensor, ""]]: ...

attention: _Attention
"""Scaled dot-product attention over heads.

Contract attention@1.10.0.
"""

bounded: _Bounded
"""Results whose size follows from values.

Contract bounded@1.0.0.
"""

noisy: _Noisy
"""Draws random numbers from a key.

Contract noisy@1.0.0.
"""

shapes: _Shapes
"""Every form of a dimension, and every type of a static argument.

Contract shapes@1.0.0.
"""
