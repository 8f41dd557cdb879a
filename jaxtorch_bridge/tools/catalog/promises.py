"""What a contract alone says about plans: derivatives, batches, shards, effects."""

from __future__ import annotations

from collections.abc import Iterator

from ...planner.explain import BACKEND_WORDS, COPIES_WORDS, VMAP_WORDS
from ...spec.model import CallableSpec

_RESIDUALS = {
    "tape": "one run, whose record torch keeps for the backward as long as there is room",
    "recompute": "the backward runs the function again",
    "auto": "one run, whose record torch keeps for the backward as long as there is room",
}
_CONCURRENCY = {
    "parallel": "calls on several devices run at once",
    "locked": "calls on several devices take turns",
}
_OUTPUTS = {
    "in_place": "written straight into XLA's buffers by graphs that can and by the function's own "
    "`out=`, copied otherwise",
    "copy": "copied to XLA's buffers",
    "auto": "written in place by graphs where it costs less, copied otherwise",
}


def promises(spec: CallableSpec) -> tuple[tuple[str, str], ...]:
    """Title and text of each thing that plans of this contract will do."""
    return tuple(_promises(spec))


def _promises(spec: CallableSpec) -> Iterator[tuple[str, str]]:
    yield "Derivatives", _depth(spec.vjp_depth)
    if spec.vjp_depth != 0:
        yield "Residuals", f"{spec.residuals}: {_RESIDUALS[spec.residuals]}"
    verified = "; the first batched run is compared with single calls" if spec.verify else ""
    yield "vmap", f"{spec.vmap_method}: {VMAP_WORDS[spec.vmap_method]}{verified}"
    yield "Sharding", _sharding(spec)
    if spec.mutates:
        yield "Writes to", ", ".join(spec.mutates)
    if spec.copies:
        yield "Copies", f"{', '.join(spec.copies)}: {COPIES_WORDS}"
    if spec.random != "none":
        yield "Random", "takes a JAX random key"
    if spec.concurrency is not None:
        yield "Concurrency", f"{spec.concurrency}: {_CONCURRENCY[spec.concurrency]}"
    if spec.execution.backend != "auto":
        alone = "" if spec.execution.islands else "; torch runs no part of it"
        words = BACKEND_WORDS[spec.execution.backend]
        recorded = "; XLA may record its calls on a GPU" if spec.execution.cuda_graph else ""
        yield "Backend", f"{spec.execution.backend}: {words}{alone}{recorded}"
    if spec.execution.outputs != "auto":
        yield "Results", f"{spec.execution.outputs}: {_OUTPUTS[spec.execution.outputs]}"


def _depth(depth: int | None) -> str:
    if depth is None:
        return "every order"
    return "none: gradients are an error" if depth == 0 else f"up to order {depth}"


def _sharding(spec: CallableSpec) -> str:
    cuts = ", ".join(f"{name} along {axis}" for name, axis in spec.sharding.items())
    return f"{cuts}; other dimensions must be whole" if cuts else "every dimension must be whole"
