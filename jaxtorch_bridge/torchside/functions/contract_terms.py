"""What a contract or a caller says of a function's derivatives, batches and backend."""

from __future__ import annotations

from dataclasses import dataclass

from ...choices import Backend, OutputsMode, Residuals, VmapMethod


@dataclass(frozen=True)
class Terms:
    """What a contract says of derivatives and batches.

    Attributes:
        residuals: What to keep between forward and backward.
        depth: Highest order allowed; None: any.
        depth_at: Where the contract says so, for messages.
        vmap_method: What ``jax.vmap`` does.
        verify: Compare the first batched run of a plan with single calls.
        depth_by_contract: The contract sets ``depth``; otherwise the caller did.
        autograd_only: Differentiate by ``torch.autograd.grad`` and nothing else.
        outputs: Whether torch writes results into XLA's buffers itself.
        backend: What runs the function.
        backend_at: Where the contract says so.
        islands: Whether torch may run what XLA cannot, where XLA runs the function.
        islands_at: Where the contract says so.
        cuda_graph: Whether XLA may record calls on a GPU into its command buffers.
    """

    residuals: Residuals = "auto"
    depth: int | None = None
    depth_at: str = ""
    vmap_method: VmapMethod = "torch_vmap"
    verify: bool = False
    depth_by_contract: bool = True
    autograd_only: bool = False
    outputs: OutputsMode = "auto"
    backend: Backend = "auto"
    backend_at: str = ""
    islands: bool = True
    islands_at: str = ""
    cuda_graph: bool = False


NO_TERMS = Terms()
