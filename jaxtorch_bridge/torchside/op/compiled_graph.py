"""Captured graphs, compiled."""

from __future__ import annotations

from torch import fx

from ..._compat.torch.capture.graphs import loses_checks
from ..._compat.torch.compiled_code import compiled_graph
from ..functions.tensor_function import Core


def compiled(core: Core) -> Core:
    """The core compiled, when first run.

    Itself if it is no graph, or one whose checks would get lost: that of a derivative, since
    `graph_program` objects to such graphs of a function's own calls.
    """
    if not isinstance(core, fx.GraphModule) or loses_checks(core):
        return core
    found: Core = compiled_graph(core)
    return found
