"""Backends other than eager: graphs run a function's calls, as they are or compiled."""

from __future__ import annotations

from ..._compat.torch.capture.graphs import loses_checks
from ...errors import PlanningError
from ..closure.closure_guard import ClosureGuard
from ..functions.graph_capture import NotCapturedError, capture
from ..functions.tensor_function import TensorFunction
from .program import Program


def graph_program(fn: TensorFunction) -> Program:
    """What runs a function's own calls as a graph.

    The graph holds the modules' parameters themselves, so values changed in place are seen. It
    refuses to run once a module was switched or got other parameters; the next call is planned
    anew.

    Raises:
        PlanningError: There can be no graph, or no compiled one that does the same.
    """
    reason = _no_graph(fn)
    if not reason:
        # From before: a change meanwhile makes the graph out of date.
        guard = ClosureGuard(fn.closure)
        try:
            graph = capture(
                fn,
                fn.core,
                fn.inputs,
                fn.outputs,
                plain_attention=fn.plain_attention,
            )
            if fn.terms.backend == "compile" and loses_checks(graph):
                raise NotCapturedError("it makes checks, which compiled code would leave out")
            return Program(
                graph,
                fn.inputs,
                fn.outputs,
                fn,
                fn.context.without_grad(),
                seeds=fn.seeds,
                guard=guard,
            )
        # No way round: whoever names the backend is told rather than given another.
        except NotCapturedError as error:
            reason = str(error)
    terms = fn.terms
    where = f" [{terms.backend_at}]" if terms.backend_at else ""
    raise PlanningError(
        f"{fn.label}: expected a function that a graph can stand for, as `backend: "
        f"{terms.backend}` says; {reason}. Say `eager`.{where}"
    )


def _no_graph(fn: TensorFunction) -> str:
    if not fn.inference.traced:
        # The last way, with symbols for what follows from values, goes furthest.
        failures = fn.inference.failures
        told = failures[-1:] if fn.terms.backend == "xla" else failures[:1]
        why = "".join(f" ({failure})" for failure in told)
        return f"it could not be evaluated abstractly{why}"
    if fn.inference.updates_state:
        return (
            "it writes to tensors that it closes over, or keeps tensors that it makes (a cache "
            "that is filled once is full after a call in torch)"
        )
    if fn.terms.backend == "xla" and fn.inference.live_draws:
        return fn.inference.live_draws
    if fn.terms.backend == "compile" and fn.inference.random:
        return "it draws random numbers, and compiled code would draw others"
    if fn.order_of_draws_matters:
        return "it fills tensors that are not row-major with random numbers, in an order of its own"
    return ""
