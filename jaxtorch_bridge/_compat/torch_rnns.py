"""Torch's recurrent layers where they are traced. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.torch_version import TorchVersion


@contextlib.contextmanager
def traceable_rnns() -> Iterator[None]:
    """Let LSTM layers on CPU be traced as plain operations.

    Their fused layer, traced below autograd, does not save what its backward needs (torch 2.13:
    its ``train`` argument follows the grad mode of the trace).
    """
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with _states_in_shape():
            yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


# Before, these plain operations take the batch's axis out of the last states, and not the one
# that they put in: their shape is wrong.
_KEEPS_ITS_AXES = TorchVersion(torch.__version__) >= "2.13"


@contextlib.contextmanager
def _states_in_shape() -> Iterator[None]:
    """Have a traced LSTM layer return its last states in the shape of its first ones."""
    if _KEEPS_ITS_AXES:
        yield
        return
    from torch._decomp import decompositions

    original: Any = decompositions.one_layer_lstm

    def one_layer_lstm(inp: Any, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        out, states = original(inp, hidden, *args, **kwargs)
        pairs = zip(states, hidden, strict=True)
        return out, tuple(last.reshape(first.shape) for last, first in pairs)

    decompositions.one_layer_lstm = one_layer_lstm
    try:
        yield
    finally:
        decompositions.one_layer_lstm = original
