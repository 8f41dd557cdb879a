"""Torch's recurrent layers where they are traced. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch._decomp.decompositions
from torch.torch_version import TorchVersion

from .higher_order import CallMode

_NAMES = {getattr(torch, name): name for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}


class PlainRnns(CallMode):
    """Has recurrent layers on CPU computed by plain operations, by torch's own decompositions.

    An LSTM's fused layer, traced below autograd, does not save what its backward needs (torch
    2.13: its ``train`` argument follows the grad mode of the trace). Others have no rule for
    ``torch.vmap``.

    Args:
        cudnn: Those on a GPU too. cuDNN asks where weights lie, and fakes lie nowhere.
    """

    def __init__(self, *, cudnn: bool = False) -> None:
        super().__init__()
        self._cudnn = cudnn

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a torch function; recurrent layers by plain operations."""
        name = _NAMES.get(func)
        # Those of packed sequences have the weights there, behind the batch's sizes.
        if name is None or isinstance(args[3], (list, tuple)):
            return func(*args, **kwargs)
        if args[0].device.type != "cpu" and not self._cudnn:
            return func(*args, **kwargs)
        if name == "lstm":
            return _lstm(*args)
        # Of its two overloads the one for tensors that are no packed sequence.
        form = getattr(torch.ops.aten, name).input
        return form.py_kernels[torch._C.DispatchKey.CompositeImplicitAutograd](*args)


def _lstm(
    x: torch.Tensor,
    states: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    *settings: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As torch's decomposition, which would take the fused layer on CPU."""
    decompositions: Any = torch._decomp.decompositions
    # With projections the hidden state is smaller than the cell's, and each layer has one more
    # weight.
    projects = states[0].size(2) != states[1].size(2)
    by_layer = decompositions.gather_params(weights, has_biases, projects)
    hidden = list(zip(*states, strict=True))
    out, last = decompositions._rnn_helper(x, hidden, by_layer, has_biases, *settings, _layer)
    first, second = zip(*last, strict=True)
    return out, torch.stack(first), torch.stack(second)


# Before, torch's layer takes the batch's axis out of the last states, and not the one that it put
# in: their shape is wrong.
_KEEPS_ITS_AXES = TorchVersion(torch.__version__) >= "2.13"


def _layer(inp: Any, hidden: Any, *args: Any, **kwargs: Any) -> Any:
    out, states = torch._decomp.decompositions.one_layer_lstm(inp, hidden, *args, **kwargs)
    if _KEEPS_ITS_AXES:
        return out, states
    pairs = zip(states, hidden, strict=True)
    return out, tuple(last.reshape(first.shape) for last, first in pairs)
