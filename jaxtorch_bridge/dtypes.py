"""The one table of dtypes: JAX's name, torch's name, DLPack's code.

Both sides call every partnered dtype by the same name, so one column serves both. A row
without a partner carries the remark that an error message shows. Lookups on the JAX and the
torch side, the contract's dtypes and the native handler's table (`native_src/buffer_view.cc`,
`DlpackDtypeOf`) all agree with this one. Imports neither jax nor torch.

Source: DLPack 1.1 `DLDataTypeCode`; jax.numpy and torch dtype lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["bool", "int", "float", "complex"]


@dataclass(frozen=True)
class DtypeRow:
    """One dtype that both sides have.

    Attributes:
        name: ``jnp.<name>`` and ``torch.<name>``.
        kind: What it counts as in differentiation and in contracts.
        size_bytes: Bytes an element.
        dlpack: DLPack's (type code, bits).
    """

    name: str
    kind: Kind
    size_bytes: int
    dlpack: tuple[int, int]

    @property
    def differentiable(self) -> bool:
        """Whether JAX gives it a tangent of its own dtype (others have ``float0``)."""
        return self.kind in ("float", "complex")


# DLPack's type codes: 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool, from 10 on float8.
_ROWS = (
    DtypeRow("bool", "bool", 1, (6, 8)),
    DtypeRow("int8", "int", 1, (0, 8)),
    DtypeRow("int16", "int", 2, (0, 16)),
    DtypeRow("int32", "int", 4, (0, 32)),
    DtypeRow("int64", "int", 8, (0, 64)),
    DtypeRow("uint8", "int", 1, (1, 8)),
    DtypeRow("uint16", "int", 2, (1, 16)),
    DtypeRow("uint32", "int", 4, (1, 32)),
    DtypeRow("uint64", "int", 8, (1, 64)),
    DtypeRow("float16", "float", 2, (2, 16)),
    DtypeRow("float32", "float", 4, (2, 32)),
    DtypeRow("float64", "float", 8, (2, 64)),
    DtypeRow("bfloat16", "float", 2, (4, 16)),
    DtypeRow("complex64", "complex", 8, (5, 64)),
    DtypeRow("complex128", "complex", 16, (5, 128)),
    DtypeRow("float8_e4m3fn", "float", 1, (10, 8)),
    DtypeRow("float8_e4m3fnuz", "float", 1, (11, 8)),
    DtypeRow("float8_e5m2", "float", 1, (12, 8)),
    DtypeRow("float8_e5m2fnuz", "float", 1, (13, 8)),
    DtypeRow("float8_e8m0fnu", "float", 1, (14, 8)),
)

DTYPES: dict[str, DtypeRow] = {row.name: row for row in _ROWS}

# Dtypes of one side only, and what to do instead.
WITHOUT_PARTNER: dict[str, str] = {
    "int2": "torch has no 2-bit integers; use int8",
    "int4": "torch has no 4-bit integers in tensors; use int8",
    "uint2": "torch has no 2-bit integers; use uint8",
    "uint4": "torch has no 4-bit integers in tensors; use uint8",
    "float4_e2m1fn": "torch packs two of these in an element (float4_e2m1fn_x2); use float8_e4m3fn",
    "float4_e2m1fn_x2": "JAX does not pack two values in one element; use float8_e4m3fn",
    "float8_e3m4": "torch has no such float8; use float8_e4m3fn",
    "float8_e4m3": "torch has no such float8; use float8_e4m3fn",
    "float8_e4m3b11fnuz": "torch has no such float8; use float8_e4m3fnuz",
    "complex32": "JAX has no half-precision complex numbers; use complex64",
    "qint8": "JAX has no quantised dtypes; call `.int_repr()` or `.dequantize()` first",
    "quint8": "JAX has no quantised dtypes; call `.int_repr()` or `.dequantize()` first",
    "qint32": "JAX has no quantised dtypes; call `.int_repr()` or `.dequantize()` first",
    "quint4x2": "JAX has no quantised dtypes; call `.dequantize()` first",
    "quint2x4": "JAX has no quantised dtypes; call `.dequantize()` first",
}

# What JAX makes of 64-bit dtypes while `jax_enable_x64` is off.
_NARROWED = {
    "int64": "int32",
    "uint64": "uint32",
    "float64": "float32",
    "complex128": "complex64",
}


def canonical_name(name: str, *, x64: bool) -> str:
    """The dtype that JAX holds for ``name``: itself, or its 32-bit kind while x64 is off."""
    return name if x64 else _NARROWED.get(name, name)


def remark_on(name: str) -> str:
    """Why ``name`` cannot cross the bridge and what to use instead."""
    if name.startswith("key<"):
        return "it is a typed PRNG key; pass jax.random.key_data(key) and seed torch from that"
    return WITHOUT_PARTNER.get(name, "no dtype of the other side corresponds to it")
