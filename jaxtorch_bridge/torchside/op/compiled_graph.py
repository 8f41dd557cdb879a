"""Captured graphs, compiled."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..._compat.torch_compile import compiled_graph
from ..._compat.torch_graphs import loses_checks
from ..functions.source import Core
from .results_in_place import Around, GraphCore, Plain


def compiled(core: Core) -> Core:
    """The core with its graph compiled, when first run.

    Itself if it is no graph, or one whose checks would get lost: that of a derivative, since
    `graph_program` objects to such graphs of a function's own calls.
    """
    around: Any
    if isinstance(core, fx.GraphModule):
        # No count of results: nobody asks it for their places.
        around = Plain(core, 0)
    elif isinstance(core, GraphCore):
        around = core
    else:
        return core
    graph = around.graph_module
    return core if loses_checks(graph) else Around(around, compiled_graph(graph), 0)
