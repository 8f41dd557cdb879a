# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   choices@1.0.0: choices
# ruff: noqa
# fmt: off
# pyright: reportIncompleteStub=false

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, overload
from jax import Array
from jaxtorch_bridge import JaxCallable
from jaxtyping import BFloat16, Float32, Int64, Int8
from torch import Tensor

# What the contracts do not speak of.
def __getattr__(name: str) -> Any: ...

class _ChoicesTable(TypedDict):
    codes: Int8[Array, "n"] | Int64[Array, "n"]
    weights: Float32[Array, "n"] | BFloat16[Array, "n"]

class _ChoicesTableTensors(TypedDict):
    codes: Int8[Tensor, "n"] | Int64[Tensor, "n"]
    weights: Float32[Tensor, "n"] | BFloat16[Tensor, "n"]

class _Choices(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: Float32[Array, "batch dim"] | BFloat16[Array, "batch dim"],
        y: Float32[Array, "batch dim"] | BFloat16[Array, "batch dim"],
        *,
        mask: Float32[Array, "batch"] | BFloat16[Array, "batch"] | None = None,
        table: _ChoicesTable,
        mode: Literal['mean', 'sum'] = 'mean',
        dim: int | None = None,
        axes: Sequence[int] = (0, 1),
        eps: float,
        flag: bool = False,
        level: Literal[0, 1, None] = None,
        rate: float | int | None | Sequence[int] | Sequence[Any] = 0.5,
        anything: Any,
        pair: Sequence[int] = (1, 2),
    ) -> tuple[Float32[Array, "batch dim"] | BFloat16[Array, "batch dim"], Int8[Array, "n"] | Int64[Array, "n"]]:
        """Everything that a caller may choose.

        Contract choices@1.0.0. Sizes must fit dim >= 2, n < 2*dim.

        Args:
            x: What is scaled.
            table: What codes stand for.
                Ends in a quote\"
            mode: How to reduce.

        Returns:
            codes: Unchanged.

        Dimensions:
            batch: Sequences in a batch.
            n: How many codes.
                May be 0.

        Constraints:
            dim >= 2: One would be no direction.
        """
    @overload
    def __call__(
        self,
        /,
        x: Float32[Tensor, "batch dim"] | BFloat16[Tensor, "batch dim"],
        y: Float32[Tensor, "batch dim"] | BFloat16[Tensor, "batch dim"],
        *,
        mask: Float32[Tensor, "batch"] | BFloat16[Tensor, "batch"] | None = None,
        table: _ChoicesTableTensors,
        mode: Literal['mean', 'sum'] = 'mean',
        dim: int | None = None,
        axes: Sequence[int] = (0, 1),
        eps: float,
        flag: bool = False,
        level: Literal[0, 1, None] = None,
        rate: float | int | None | Sequence[int] | Sequence[Any] = 0.5,
        anything: Any,
        pair: Sequence[int] = (1, 2),
    ) -> tuple[Float32[Tensor, "batch dim"] | BFloat16[Tensor, "batch dim"], Int8[Tensor, "n"] | Int64[Tensor, "n"]]: ...

choices: _Choices
"""Everything that a caller may choose.

Contract choices@1.0.0.
"""
