"""How a torch function is run, as its contract says it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, StrictBool, ValidationInfo, field_validator

from ..choices import Backend, OutputsMode
from .language.problems import fault


class Execution(BaseModel):
    """How the torch function is run.

    Attributes:
        backend: What runs it: ``eager`` the function's own code (also ``auto``), ``graph`` a graph
            captured when the call is planned, ``compile`` that graph compiled by ``torch.compile``,
            ``xla`` that graph as JAX operations, each with those of derivatives and batches.
        outputs: Whether torch writes results into XLA's buffers itself (``in_place``: graphs where
            they can, the function's own calls by its ``out=``), or they are copied there; with
            ``auto`` graphs write what costs less so.
        islands: With ``xla``: whether torch may run what JAX has no operation for, by a call amid
            the others; ``false`` makes an error of it.
        cuda_graph: With ``graph``: whether XLA may record calls on a GPU into its command buffers
            (CUDA graphs), and run what they launched in their place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend = "auto"
    outputs: OutputsMode = "auto"
    islands: StrictBool = True
    cuda_graph: StrictBool = False

    @field_validator("islands")
    @classmethod
    def _of_xla(cls, islands: bool, info: ValidationInfo) -> bool:
        backend = info.data.get("backend", "xla")
        if not islands and backend != "xla":
            expected = f"true, or `backend: xla` (with `{backend}` torch runs all of it)"
            raise fault(expected, "false")
        return islands

    @field_validator("cuda_graph")
    @classmethod
    def _of_graph(cls, cuda_graph: bool, info: ValidationInfo) -> bool:
        backend = info.data.get("backend", "graph")
        if cuda_graph and backend != "graph":
            expected = "false, or `backend: graph`, where no Python code of the function runs"
            raise fault(expected, f"true with `{backend}`")
        return cuda_graph
