"""Whether XLA may record a call into a command buffer, and run that instead of the call.

A command buffer is a CUDA graph of XLA's: what was launched once is launched again by the device
alone. No Python code runs then: what a call looks at besides its arguments, it looks at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from ...first_line import first_line
from .program import Program
from .stream_order import is_ordered


@dataclass(frozen=True)
class Recording:
    """What became of ``cuda_graph: true``.

    Attributes:
        asked: Whether the contract or the caller asks for it.
        refusal: Why it cannot be, in words; empty if it can.
    """

    asked: bool = False
    refusal: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether XLA is told that it may record the call."""
        return self.asked and not self.refusal

    @property
    def words(self) -> str:
        """For `explain`; empty if nobody asked."""
        if not self.asked:
            return ""
        return f"not recorded: {self.refusal}" if self.refusal else RECORDED


RECORDED = "recorded into XLA's command buffers, and no Python code runs when they do"
NOT_ASKED = Recording()


def recording_of(program: Program) -> Recording:
    """Whether calls of a program may be recorded, if somebody asks for that.

    On a GPU a program of which nothing else is known to speak against it is captured once, on
    zeros.
    """
    if not program.home.terms.cuda_graph:
        return NOT_ASKED
    return Recording(True, _refusal(program) or _failure(program))


def _refusal(program: Program) -> str:
    """What can be told without running it."""
    if program.device != "cuda":
        return "only a GPU has command buffers"
    if not isinstance(program.core, fx.GraphModule):
        return "no graph of it was captured, and its Python code has to run in each call"
    if program.seeds or program.gives_states or program.repeats_draws or program.home.may_draw:
        return "it draws random numbers, which would be the same ones each time"
    if program.home.compare is not None:
        return "its first runs are compared with the function's own"
    if is_ordered(program):
        return (
            "it refers to tensors on the GPU, which torch's own stream may write to; pass them as "
            "arguments"
        )
    if not program.home.closure.cannot_change:
        return (
            "what the function closes over may change, and nobody would notice; pass it as an "
            "argument"
        )
    return ""


def _failure(program: Program) -> str:
    """What torch says when it captures the program, on zeros."""
    core, device = program.core, torch.device("cuda", torch.cuda.current_device())
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.no_grad(), torch.cuda.stream(stream):
            operands = [
                torch.zeros(sig.shape, dtype=getattr(torch, sig.torch_dtype), device=device)
                for sig in program.inputs
            ]
            # What libraries set up when they are first used is no part of it.
            core(*operands)
        stream.synchronize()
        # Only what this thread does: others go on to allocate and to wait.
        capture = torch.cuda.graph(
            torch.cuda.CUDAGraph(), stream=stream, capture_error_mode="thread_local"
        )
        with torch.no_grad(), capture:
            core(*operands)
    # Whatever it is: then it is called each time, as without `cuda_graph`.
    except Exception as error:
        return f"torch cannot capture it: {first_line(error)}"
    finally:
        torch.cuda.current_stream(device).wait_stream(stream)
    return ""
