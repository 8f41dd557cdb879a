"""Values that JAX hands around and nobody may use. Tried on JAX 0.10.2."""

from __future__ import annotations

from typing import Any, NoReturn

from jax._src import core as _core
from jax._src import dtypes as _dtypes
from jax._src.array import ArrayImpl
from jax._src.interpreters import pxla as _pxla
from jax.interpreters import mlir as _mlir


class Unusable:
    """Stands where an array is expected, and raises when a computation or a program reads it.

    Attributes:
        aval: The abstract value of the array.
        error: What is raised.
    """

    def __init__(self, aval: Any, error: Exception) -> None:
        self.aval = aval
        self.error = error
        self.shape, self.dtype, self.ndim = aval.shape, aval.dtype, aval.ndim

    def __repr__(self) -> str:
        return f"Unusable({self.aval.str_short()}: {self.error})"

    def __getattr__(self, name: str) -> Any:
        # The methods of arrays, which JAX calls too.
        if not name.startswith("_") and callable(getattr(ArrayImpl, name, None)):
            return self.refuse
        raise AttributeError(name)

    def refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise."""
        raise self.error

    __array__ = __float__ = __int__ = __complex__ = __bool__ = __iter__ = __getitem__ = refuse
    __len__ = __neg__ = __abs__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = refuse
    __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __matmul__ = refuse
    __rmatmul__ = __lt__ = __le__ = __gt__ = __ge__ = refuse


def _shard(values: Any, *_rest: Any) -> NoReturn:
    raise values[0].error


def _constant(value: Any, *_rest: Any) -> NoReturn:
    raise value.error


_core.pytype_aval_mappings[Unusable] = lambda value: value.aval
_pxla.shard_arg_handlers[Unusable] = _shard
_dtypes.register_canonicalize_value_handler(Unusable, None)
_mlir.register_constant_handler(Unusable, _constant)  # type: ignore[arg-type]
