"""Arrays from one side to the other outside of jit: shared memory where it can be, else a copy.

Sharing has the usual price: an in-place write through torch shows in the JAX array on the same
memory, although JAX takes arrays for immutable. `copy=True` prevents it. JAX also computes
behind the caller's back, so call `jax.block_until_ready` on what was computed from a shared
array before writing to its memory.

On CUDA, DLPack's stream exchange orders both sides when an array changes hands: the receiver's
work (torch: its current stream on that device) waits for what was queued to produce the array.
Nothing orders what comes after, so keep a shared array until the work that reads it is done.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
import torch.utils.dlpack

from ._compat.torch.fake_tensors import is_fake
from .dtypes import DTYPES, remark_on
from .errors import DtypeError, NoValuesError, TracedArrayError, TransferError
from .recorded_inputs import is_recorded

# XLA compiles code for entry buffers aligned like this, and on CPU it refuses others. torch's
# own allocations always are; views into the middle of one need not be.
_XLA_ALIGNMENT_BYTES = 64

# What importing a foreign buffer raises, in jax and in torch.
_IMPORT_ERRORS = (BufferError, RuntimeError, TypeError, ValueError)


def dtype_t2j(dtype: torch.dtype) -> np.dtype[Any]:
    """The dtype of JAX (and of numpy, through ml_dtypes) for a torch dtype.

    64-bit dtypes are returned as such, also while ``jax_enable_x64`` is off.

    Raises:
        DtypeError: If JAX has no such dtype, or ``dtype`` is no ``torch.dtype``.
    """
    if not isinstance(dtype, torch.dtype):
        raise DtypeError(f"dtype_t2j: expected a torch.dtype; got {dtype!r}")
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise DtypeError(f"dtype torch.{name} cannot go to JAX: {remark_on(name)}")
    partner: np.dtype[Any] = np.dtype(getattr(jax.numpy, name))
    return partner


def dtype_j2t(dtype: Any) -> torch.dtype:
    """The torch dtype for what names a dtype in JAX.

    Args:
        dtype: A numpy dtype, a scalar type such as ``jnp.bfloat16``, or a name such as
            ``"float8_e5m2"``. ``int`` and ``float`` mean 64 bits, as in numpy.

    Raises:
        DtypeError: If torch has no such dtype, or ``dtype`` names none.
    """
    name = _jax_dtype_name(dtype)
    if name not in DTYPES:
        raise DtypeError(f"dtype {name} cannot go to torch: {remark_on(name)}")
    partner: torch.dtype = getattr(torch, name)
    return partner


def t2j(tensor: torch.Tensor, *, copy: bool | None = None) -> jax.Array:
    """The tensor as a JAX array on the same device, on the same memory where JAX can use it.

    A copy is made of tensors that are not contiguous, lazily conjugated or negated, in pinned
    memory or at an address that is not a multiple of 64 bytes (as in ``x[1:]``), and of 64-bit
    dtypes while ``jax_enable_x64`` is off, which become their 32-bit kind as everywhere in JAX.
    Gradients do not flow through: a tensor that requires grad is detached. Inside of a torch
    function that JAX differentiates it is refused.

    With shared memory, a later in-place write to ``tensor`` shows in the JAX array. Do not donate
    a shared array to a jitted function: on CPU XLA then copies, elsewhere it may write to the
    tensor's memory.

    Args:
        tensor: Any shape, dense; a dtype of ``jaxtorch_bridge.dtypes``; on CPU or CUDA.
        copy: True for memory of its own, False for an error instead of a copy, None to copy
            only where needed.

    Returns:
        An array of the tensor's shape, row-major, committed to its device.

    Raises:
        TransferError: If ``tensor`` is no tensor, has no memory that JAX could read (sparse,
            quantised, meta, fake, traced, freed), is on a device that JAX does not have, would
            need a copy with ``copy=False``, or has a gradient of JAX's going through it.
        DtypeError: If JAX has no such dtype.
    """
    plain = _plain_tensor(tensor)
    # JAX's own rule, at the x64 setting of this moment.
    dtype = dtype_j2t(jax.dtypes.canonicalize_dtype(dtype_t2j(plain.dtype)))
    reason = _why_copy_tensor(plain, dtype)
    if copy is False and reason is not None:
        raise TransferError(f"t2j: copy=False, but {reason}; pass copy=None to allow a copy")
    if copy or reason is not None:
        # Memory of torch's own is row-major and aligned, and the copy works out a lazy conjugate.
        plain = torch.empty(plain.shape, dtype=dtype, device=plain.device).copy_(plain)
    return _import_tensor(plain)


def j2t(array: jax.Array | np.ndarray[Any, Any], *, copy: bool | None = None) -> torch.Tensor:
    """The array as a torch tensor on the same device, on the same memory where torch can use it.

    JAX arrays on one device never need a copy. numpy arrays are copied when they are read-only
    (torch would write to them), byte-swapped, misaligned or have negative strides.

    With shared memory, an in-place write to the tensor shows in the JAX array, and in all that
    JAX still computes from it. Pass ``copy=True`` if torch is going to write.

    Args:
        array: Any shape; a dtype of ``jaxtorch_bridge.dtypes``; a JAX array on one device (one
            still being computed is waited for, on CUDA by torch's current stream) or numpy's.
        copy: True for memory of its own, False for an error instead of a copy, None to copy
            only where needed.

    Returns:
        A tensor of the array's shape and dtype (64-bit ones too) that does not require grad.

    Raises:
        TransferError: If ``array`` is no array, a tracer, sharded or replicated over several
            devices, deleted or donated, made of PRNG keys or ``float0``, on a device that
            torch does not have, or would need a copy with ``copy=False``.
        DtypeError: If torch has no such dtype.
    """
    if isinstance(array, np.ndarray):
        return _from_numpy(array, copy)
    if isinstance(array, jax.Array):
        return _from_jax(array, copy)
    raise TransferError(f"j2t: expected a jax.Array or numpy.ndarray; got {_type_name(array)}")


def _plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without autograd, once it is clear that there is memory behind it."""
    if not isinstance(tensor, torch.Tensor):
        raise TransferError(f"t2j: expected a torch.Tensor; got {_type_name(tensor)}")
    obstacle = _obstacle(tensor)
    if obstacle is not None:
        # Somebody evaluates abstractly, who has to know that values are missing and nothing else.
        kind = NoValuesError if is_fake(tensor) else TransferError
        raise kind(f"t2j: expected a dense tensor with memory of its own; {obstacle}")
    # Not inside of a custom function, whose own backward says what its gradient is.
    if torch.is_grad_enabled() and is_recorded(tensor):
        raise TransferError(
            "t2j: got a tensor that a gradient goes through (it requires grad, inside of a torch "
            "function that JAX differentiates); what JAX computes of it would count as constant. "
            "Pass `.detach()` if that is meant; otherwise give the torch function the result, "
            "computed by JAX outside of it"
        )
    try:
        plain = tensor.detach()
        # The storage's address: the tensor's own one adds the offset, even to null.
        address = plain.untyped_storage().data_ptr()
    except Exception as error:
        raise NoValuesError(
            "t2j: got a tensor without data of its own, as inside torch.func transforms and "
            "FakeTensorMode; call t2j outside of them"
        ) from error
    if address == 0 and plain.numel() > 0:
        raise TransferError(
            "t2j: the tensor's memory is gone (freed, resized to 0 bytes or never allocated); "
            "pass it while its storage is filled"
        )
    return plain


def _obstacle(tensor: torch.Tensor) -> str | None:
    """What kind of tensor this is if not a dense one, and what to pass instead."""
    # A class that takes over dispatch (FakeTensor, DTensor) only stands for other tensors.
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return (
            f"got {_type_name(tensor)}, which only stands for other tensors; pass a real one "
            "(DTensor: `.to_local()` or `.full_tensor()`; nested: `.to_padded_tensor(0.0)`)"
        )
    if tensor.is_quantized:
        return "got a quantised tensor; call `.dequantize()` or `.int_repr()` first"
    if tensor.is_nested:
        return "got a nested tensor; call `.to_padded_tensor(0.0)` or pass `.unbind()`"
    if tensor.layout is not torch.strided:
        return f"got layout {tensor.layout}; call `.to_dense()` first"
    if tensor.is_meta:
        return "got a meta tensor, which has no data; pass a real one, as from `torch.empty_like`"
    return None


def _why_copy_tensor(tensor: torch.Tensor, dtype: torch.dtype) -> str | None:
    """Why JAX cannot use this memory as an array of ``dtype``, or None if it can."""
    if tensor.dtype != dtype:
        return f"JAX holds {tensor.dtype} as {dtype} while jax_enable_x64 is off"
    if tensor.is_conj() or tensor.is_neg():
        return "the tensor is lazily conjugated or negated"
    if not tensor.is_contiguous():
        # JAX would take transposed memory as an array of that layout, but functions that were
        # compiled ahead of time reject such arrays.
        return (
            f"the tensor is not contiguous (shape {tuple(tensor.shape)}, strides {tensor.stride()})"
        )
    if tensor.data_ptr() % _XLA_ALIGNMENT_BYTES:
        return f"the tensor's address is not a multiple of {_XLA_ALIGNMENT_BYTES} bytes"
    if tensor.device.type == "cpu" and tensor.is_pinned():
        # JAX counts pinned memory as the GPU's, which would move the array to another device.
        return "the tensor is in pinned memory"
    return None


def _import_tensor(tensor: torch.Tensor) -> jax.Array:
    """A JAX array on the tensor's memory; `copy=False` has JAX raise rather than copy."""
    try:
        # torch exports only from the current CUDA device, and orders only its current stream.
        with torch.cuda.device(tensor.get_device()):  # -1, so nothing, for the CPU
            array: jax.Array = jax.dlpack.from_dlpack(tensor, copy=False)
            return array
    except _IMPORT_ERRORS as error:
        raise TransferError(
            f"t2j: JAX cannot take a tensor on {tensor.device}: {error}; JAX has "
            f"{jax.devices()}, so move it with `.to(...)`, or `.cpu()`"
        ) from error


def _from_jax(array: jax.Array, copy: bool | None) -> torch.Tensor:
    _check_array(array)
    # For its error alone, which says what to use instead.
    dtype_j2t(array.dtype)
    if not _on_cuda_memory(array):
        # No stream orders host memory, so its values must be there before torch looks.
        array.block_until_ready()
    try:
        tensor = torch.utils.dlpack.from_dlpack(array)
    except _IMPORT_ERRORS as error:
        raise TransferError(
            f"j2t: torch cannot take an array on {array.device}: {error}; to go through the "
            'host, use jax.device_put(x, jax.devices("cpu")[0])'
        ) from error
    return _own_copy(tensor) if copy else tensor


def _own_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A clone that no longer depends on JAX's memory."""
    clone = tensor.clone()
    if clone.is_cuda:
        # JAX may reuse the source as soon as it is dropped, and does not wait for torch.
        torch.cuda.current_stream(clone.device).synchronize()
    return clone


def _check_array(array: jax.Array) -> None:
    """Raise for arrays that have no data, or not in one place."""
    if isinstance(array, jax.core.Tracer):
        raise TracedArrayError(
            f"j2t: expected an array with data; got a tracer ({array.aval}). Inside jit, grad "
            "or vmap there is no data to hand over; wrap the torch function in jax_callable"
        )
    _check_has_numbers(array.dtype)
    if array.is_deleted():
        raise TransferError(
            "j2t: the array is deleted or was donated to a jitted function; call j2t before "
            "that, or pass that function's result"
        )
    count = len(array.sharding.device_set)
    if count > 1:
        spread = "replicated" if array.is_fully_replicated else "sharded"
        raise TransferError(
            f"j2t: expected an array on one device; got one {spread} over {count} devices. Use "
            "jax.device_put(x, jax.devices()[0]), or the parts in x.addressable_shards"
        )


def _check_has_numbers(dtype: Any) -> None:
    if jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        raise TransferError(
            f"j2t: typed PRNG keys ({dtype}) mean nothing to torch; pass jax.random.key_data(x)"
        )
    if dtype == jax.dtypes.float0:
        raise TransferError(
            "j2t: float0 is the empty tangent of integers and has no data; use "
            "jax.numpy.zeros(x.shape) where torch needs zeros"
        )


def _on_cuda_memory(array: jax.Array) -> bool:
    if next(iter(array.devices())).platform == "cpu":
        return False
    # An array of a GPU's may lie in the host's memory.
    return array.sharding.memory_kind in (None, "device")


def _from_numpy(array: np.ndarray[Any, Any], copy: bool | None) -> torch.Tensor:
    _check_has_numbers(array.dtype)
    dtype = dtype_j2t(array.dtype)
    if isinstance(array, np.ma.MaskedArray):
        raise TransferError("j2t: torch would lose a masked array's mask; call `.filled()` first")
    reason = _why_copy_numpy(array)
    if copy is False and reason is not None:
        raise TransferError(f"j2t: copy=False, but {reason}; pass copy=None to allow a copy")
    plain = np.asarray(array)
    if copy or reason is not None:
        plain = np.array(plain, dtype=plain.dtype.newbyteorder("="), order="C", copy=True)
    if plain.dtype.isbuiltin == 2:
        # torch does not know the dtypes that ml_dtypes adds to numpy, but knows their bits.
        return torch.from_numpy(plain.view(f"i{plain.itemsize}")).view(dtype)
    return torch.from_numpy(plain)


def _why_copy_numpy(array: np.ndarray[Any, Any]) -> str | None:
    """Why torch cannot use this memory as it is, or None if it can."""
    if not array.flags.writeable:
        return "the numpy array is read-only, which torch's tensors cannot be"
    if not array.dtype.isnative:
        return "the numpy array is byte-swapped"
    if not array.flags.aligned or any(s < 0 or s % array.itemsize for s in array.strides):
        return f"the numpy array is misaligned or has strides ({array.strides}) unknown to torch"
    return None


def _jax_dtype_name(dtype: Any) -> str:
    """JAX's name of ``dtype``, also if torch does not have it."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    try:
        if dtype is None:
            raise TypeError("numpy would read None as float64")
        if jax.numpy.issubdtype(dtype, jax.dtypes.extended):
            return str(dtype)
        return str(np.dtype(dtype).name)
    except (TypeError, ValueError):
        raise DtypeError(f"dtype_j2t: expected a dtype of JAX or numpy; got {dtype!r}") from None


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
