"""What holds for derivatives and batches: the contract's words, or the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..planner.options import Options
from ..torchside.functions.contract_terms import Terms

if TYPE_CHECKING:
    from ..spec.model import CallableSpec


def mutates_of(spec: CallableSpec | None, options: Options) -> tuple[str, ...]:
    """The arguments that a function writes to: the caller's word, or the contract's."""
    if options.mutates is not None:
        return options.mutates
    return () if spec is None else spec.mutates


def copies_of(spec: CallableSpec | None, options: Options) -> tuple[str, ...]:
    """The arguments that a function gets as copies: the caller's word, or the contract's."""
    if options.copies is not None:
        return options.copies
    return () if spec is None else spec.copies


def terms_of(spec: CallableSpec | None, options: Options) -> Terms:
    """The terms of a callable's plans.

    Raises:
        ArgumentError: Calls are to be recorded that run Python code.
    """
    backend = options.backend or ("auto" if spec is None else spec.execution.backend)
    options.refuse_recording_code(backend)
    if spec is None:
        return Terms(
            depth=options.declared.depth,
            vmap_method=options.vmap_method or "torch_vmap",
            verify=bool(options.verify),
            depth_by_contract=False,
            autograd_only=options.declared.autograd_only,
            backend=backend,
            islands=options.islands is not False,
            cuda_graph=bool(options.cuda_graph),
        )
    return Terms(
        spec.residuals,
        spec.vjp_depth,
        spec.where("vjp_depth"),
        options.vmap_method or spec.vmap_method,
        spec.verify if options.verify is None else options.verify,
        outputs=spec.execution.outputs,
        backend=backend,
        backend_at="" if options.backend else spec.where("execution.backend"),
        islands=spec.execution.islands if options.islands is None else options.islands,
        islands_at="" if options.islands is False else spec.where("execution.islands"),
        # Another backend may have been asked for than the contract's.
        cuda_graph=backend == "graph"
        and (spec.execution.cuda_graph if options.cuda_graph is None else options.cuda_graph),
    )
