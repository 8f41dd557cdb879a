"""What a tape of a function will be like, found by recording an abstract run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from ...._compat.torch.storages import memory_key
from ...._compat.torch.tensors import write_count
from ...functions.graph_capture import NotCapturedError, abstractly
from ...functions.tensor_function import Core, TensorFunction
from ...functions.unrecorded_backward import refuse_lacking
from ...modules.recorded_calls import recording
from ...observe.abstract_evaluation import fake_inputs


class _SavedSizes:
    """Counts the memory that a tape keeps: what is saved and is no input's, each piece once."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        self.size_bytes = 0
        self._seen = {memory_key(tensor) for tensor in inputs}

    def pack(self, tensor: torch.Tensor) -> Any:
        """Count."""
        key = memory_key(tensor)
        # Parameters that the function closes over are there anyway.
        if key and key not in self._seen and not (tensor.is_leaf and tensor.requires_grad):
            self._seen.add(key)
            self.size_bytes += tensor.untyped_storage().nbytes()
        return tensor.detach(), write_count(tensor)

    @staticmethod
    def unpack(packed: Any) -> torch.Tensor:
        """The tensor, unless it was written to: another core may do."""
        tensor, version = packed
        if write_count(tensor) != version:
            raise RuntimeError("a tensor was written to after autograd had saved it")
        return tensor  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ExpectedTape:
    """What to record, and what comes of it.

    Attributes:
        function: Which of the cores to run; see `TensorFunction.differentiable_cores`.
        outs: Outputs that depend on the inputs.
        size_bytes: What torch will keep; None where only a run could tell.
        hooks_work: Whether what autograd saves can be told from what lies in XLA's memory; None
            where only a run could tell.
    """

    function: Core
    outs: tuple[int, ...]
    size_bytes: int | None
    hooks_work: bool | None = None


def expected_tape(
    fn: TensorFunction, wrt: Sequence[int], refused: Sequence[int] = ()
) -> ExpectedTape:
    """By the first core that can be recorded; ``refused`` outputs are left out.

    Raises:
        LackingDerivativeError: An output comes from an operation without a derivative.
    """
    # The last one is what autograd can record as it stands; see `TensorFunction.stand_ins`.
    cores = fn.differentiable_cores[::-1]
    if fn.loop is not None:
        cores = (*cores, fn.loop)
    possible = tuple(
        i for i, sig in enumerate(fn.outputs) if sig.differentiable and i not in refused
    )
    if not fn.capturable:
        return ExpectedTape(cores[0], possible, None)
    ways = (fn.plain_attention, True) if fn.inference.attention else (False,)
    for core, plain, hooked in itertools.product(cores, ways, (True, False)):
        try:
            return _record_abstractly(
                fn, wrt, core, possible, plain, hooked, to_the_end=len(cores) > 1
            )
        except NotCapturedError:
            continue
    return ExpectedTape(cores[0], possible, None)


def _record_abstractly(
    fn: TensorFunction,
    wrt: Sequence[int],
    core: Core,
    possible: Sequence[int],
    plain_attention: bool,
    hooked: bool,
    *,
    to_the_end: bool,
) -> ExpectedTape:
    """Run on tensors without memory.

    Args:
        fn: What `core` is of.
        wrt: Inputs to differentiate by.
        core: What to run.
        possible: Outputs that may depend on them.
        plain_attention: Without fused kernels.
        hooked: With the hooks of a tape; otherwise on what stands for copies.
        to_the_end: Go back through it as well: there are other cores.

    Raises:
        NotCapturedError: It does not work.
    """
    with abstractly(fn, plain_attention) as mode:
        fakes = fake_inputs(mode, fn.inputs, fn.device)
        saved = _SavedSizes(fakes)
        inputs = [fake.detach() for fake in fakes]
        for index in wrt:
            inputs[index].requires_grad_()
        with torch.enable_grad(), recording([inputs[index] for index in wrt]):
            if hooked:
                with saved_tensors_hooks(saved.pack, saved.unpack):
                    leaves = core(*inputs)
            else:
                leaves = core(*inputs)
            outs = tuple(index for index in possible if leaves[index].requires_grad)
            refuse_lacking(fn.label, [leaves[index] for index in outs])
            if to_the_end and outs:
                torch.autograd.grad(
                    [leaves[index] for index in outs],
                    [inputs[index] for index in wrt],
                    [torch.ones_like(leaves[index]) for index in outs],
                    allow_unused=True,
                )
    return ExpectedTape(core, outs, saved.size_bytes if hooked else None, hooked)
