"""Captured graphs, compiled."""

from __future__ import annotations

from torch import fx

from .._compat.torch_compile import compiled_graph
from .in_place import Around, GraphCore, Plain
from .source import Core


def compiled(core: Core) -> Core:
    """The core with its graph compiled; itself if it is no graph. Compiled when first run."""
    if isinstance(core, fx.GraphModule):
        return Around(Plain(core, 0), compiled_graph(core), 0)
    if isinstance(core, GraphCore):
        return Around(core, compiled_graph(core.graph_module), 0)
    return core
