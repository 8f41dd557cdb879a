"""Backends other than eager: graphs run a function's calls, as they are or compiled."""

from __future__ import annotations

from ..._compat.torch.capture.graphs import loses_checks
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
    terms = source.terms
    where = f" [{terms.backend_at}]" if terms.backend_at else ""
    raise PlanningError(
        f"{source.label}: expected a function that a graph can stand for, as `backend: "
        f"{terms.backend}` says; {reason}. Say `eager`.{where}"
    )


def _no_graph(source: Source) -> str:
    if not source.inference.traced:
        why = "".join(f" ({failure})" for failure in source.inference.failures[:1])
        return f"it could not be evaluated abstractly{why}"
    if source.inference.updates_state:
        return "it writes to tensors that it closes over"
    if source.terms.backend == "xla" and source.inference.live_draws:
        return source.inference.live_draws
    if source.terms.backend == "compile" and source.inference.random:
        return "it draws random numbers, and compiled code would draw others"
    if source.order_of_draws_matters:
        return "it fills tensors that are not row-major with random numbers, in an order of its own"
    return ""
