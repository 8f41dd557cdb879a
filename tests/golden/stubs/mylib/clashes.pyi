# Made by `jaxtorch stubs` from contracts. Change those and run it again.
#   quoted@1.0.0: _quoted
#   clashes@1.0.0: float
#   quotes@1.0.0: quotes
# ruff: noqa
# fmt: off
# pyright: reportIncompleteStub=false

from builtins import float as _float
from typing import Any, TypedDict, overload
from jax import Array as _Array
from jaxtorch_bridge import JaxCallable
from jaxtyping import Float32 as _Float32, Int32
from torch import Tensor as _Tensor

# What the contracts do not speak of.
def __getattr__(name: str) -> Any: ...

class _Quoted(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: _Float32[_Array, "n"],
    ) -> _Float32[_Array, "n"]:
        """\"all of it\"

        Contract quoted@1.0.0.
        """
    @overload
    def __call__(
        self,
        /,
        x: _Float32[_Tensor, "n"],
    ) -> _Float32[_Tensor, "n"]: ...

class _FloatGroup(TypedDict):
    Array: _Float32[_Array, "n"]
    Tensor: Int32[_Array, "n"]
    Float32: _Float32[_Array, ""]

class _FloatGroupTensors(TypedDict):
    Array: _Float32[_Tensor, "n"]
    Tensor: Int32[_Tensor, "n"]
    Float32: _Float32[_Tensor, ""]

class _Float(JaxCallable[..., Any]):
    @overload
    def __call__(
        _self,
        /,
        self: _Float32[_Array, "n"],
        group: _FloatGroup,
        *,
        rate: _float = 0.5,
    ) -> tuple[_Float32[_Array, "n"], _Float32[_Array, "n"]]:
        """Names that annotations use too.

        Contract clashes@1.0.0.
        """
    @overload
    def __call__(
        _self,
        /,
        self: _Float32[_Tensor, "n"],
        group: _FloatGroupTensors,
        *,
        rate: _float = 0.5,
    ) -> tuple[_Float32[_Tensor, "n"], _Float32[_Tensor, "n"]]: ...

class _Quotes(JaxCallable[..., Any]):
    @overload
    def __call__(
        self,
        /,
        x: _Float32[_Array, "n"],
    ) -> _Float32[_Array, "n"]:
        """Ends \"\"\"the docstring\"\"\"

        \ta \\ backslash, \\n, \\N{DASH}, a null \\x00 and \u202e; déjà vu
          more \"quotes\"

        Contract quotes@1.0.0.

        Args:
            x: a "quoted" remark that ends in \\
        """
    @overload
    def __call__(
        self,
        /,
        x: _Float32[_Tensor, "n"],
    ) -> _Float32[_Tensor, "n"]: ...

_quoted: _Quoted
"""\"all of it\"

Contract quoted@1.0.0.
"""

float: _Float
"""Names that annotations use too.

Contract clashes@1.0.0.
"""

quotes: _Quotes
"""Ends \"\"\"the docstring\"\"\"

\ta \\ backslash, \\n, \\N{DASH}, a null \\x00 and \u202e; déjà vu
  more \"quotes\"

Contract quotes@1.0.0.
"""
