"""Backends other than eager: graphs run a function's calls, as they are or compiled."""

from __future__ import annotations

from ..._compat.torch.graphs import loses_checks
from ...errors import PlanningError
from ..closure.closure_guard import ClosureGuard
from ..functions.graph_capture import NotCapturedError, capture
from ..functions.source import Source
from .program import Program


def graph_program(source: Source) -> Program:
    """What runs a function's own calls as a graph.

    The graph holds the modules' parameters themselves, so values changed in place are seen. It
    refuses to run once a module was switched or got other parameters; the next call is planned
    anew.

    Raises:
        PlanningError: There can be no graph, or no compiled one that does the same.
    """
    reason = _no_graph(source)
    if not reason:
        # From before: a change meanwhile makes the graph out of date.
        guard = ClosureGuard(source.closure)
        try:
            graph = capture(
                source,
                source.function,
                source.inputs,
                source.outputs,
                plain_attention=source.plain_attention,
            )
            if source.terms.backend == "compile" and loses_checks(graph):
                raise NotCapturedError("it makes checks, which compiled code would leave out")
            return Program(
                graph,
                source.inputs,
                source.outputs,
                source,
                source.context.without_grad(),
                seeds=source.seeds,
                guard=guard,
            )
        # No way round: whoever names the backend is told rather than given another.
        except NotCapturedError as error:
            reason = str(error)
    raise PlanningError(
        f"{source.label}: the contract says `backend: {source.terms.backend}`, which runs a graph "
        f"of the function, but there can be none: {reason}. Say `eager`. "
        f"[{source.terms.backend_at}]"
    )


def _no_graph(source: Source) -> str:
    if not source.inference.traced:
        return "it could not be evaluated abstractly"
    if source.inference.updates_state:
        return "it writes to tensors that it closes over"
    if source.terms.backend == "compile" and source.inference.random:
        return "it draws random numbers, and compiled code would draw others"
    if source.keyed and source.inference.strided_draws:
        return "it fills tensors that are not row-major with random numbers, in an order of its own"
    return ""
