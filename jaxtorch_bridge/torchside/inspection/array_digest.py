"""The numbers in an array as a digest, worked out once for each state that it is in."""

from __future__ import annotations

import hashlib
import threading
import weakref
from typing import Any

import numpy as np
import torch

from ..._compat.torch.fake_tensors import is_fake
from ..._compat.torch.tensors import version_of

# For tensors that hold no numbers, or none that can be read.
UNSEEN = "unseen"

# From a tensor's id to the tensor, its version, and what it held then.
_known: dict[int, tuple[weakref.ref[Any], int, str]] = {}
_lock = threading.Lock()


def content_of(array: Any) -> str:
    """Dtype, shape and a digest of the numbers; without the numbers where there are none to see.

    Args:
        array: A numpy array or a torch tensor.
    """
    if isinstance(array, np.ndarray):
        # The bytes are addresses of objects, which differ from process to process.
        if array.dtype.hasobject:
            return f"{array.dtype} {array.shape}"
        # Worked out anew each time: numpy counts no writes.
        return f"{array.dtype} {array.shape} {_digest(array)}"
    version = version_of(array)
    with _lock:
        found = _known.get(id(array))
    # The id may be that of an older array; -1 is for tensors that do not count their writes.
    if found is not None and found[0]() is array and found[1] == version >= 0:
        return found[2]
    text = _content_of_tensor(array)
    number = id(array)  # the callback must not hold the array
    with _lock:
        # The callback takes no lock: the collector may run it in the thread that holds it.
        _known[number] = (weakref.ref(array, lambda _: _known.pop(number, None)), version, text)
    return text


def _content_of_tensor(tensor: torch.Tensor) -> str:
    if is_fake(tensor) or tensor.is_quantized:
        return UNSEEN
    if tensor.layout is torch.sparse_coo:
        parts = (tensor._indices(), tensor._values())
        return " ".join(("sparse", *map(_content_of_tensor, parts)))
    if tensor.layout is not torch.strided:
        return UNSEEN
    try:
        plain = tensor.detach().cpu().contiguous()
        # As bytes: numpy has no bfloat16.
        return _digest(plain.reshape(-1).view(torch.uint8).numpy())
    except (RuntimeError, TypeError, NotImplementedError):  # meta tensors and subclasses of theirs
        return UNSEEN


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
