"""Evaluate abstractly with symbols for what follows from values: sizes, and numbers that are read.

The last way to see outputs without a run. Where a size of theirs is such a symbol, no run may stand
for it: made-up values, and those of one call, give the size of that run alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..._compat.torch.capture.export_flags import tracing_flags
from ..._compat.torch.capture.tracing import tracing
from ..._compat.torch.fake_tensors import ValuesReadError, looks_at_values, reader_in, symbolic_mode
from ..._compat.torch.symbolic_sizes import with_symbolic_sizes
from ..._compat.torch.value_symbols import AnswersWatch
from ...errors import BridgeError, DynamicSizeError
from ...planner.array_signature import ArraySig
from ...planner.output_inference import Inference
from ..closure.closure_state import ClosureState
from ..handler.failure_messages import users_line
from ..randomness.generator_states import Generators
from ..randomness.random_draws import DrawWatch
from .abstract_evaluation import Attempt, FlatCall, evaluate, kept_fakes, take_back_after
from .watched_run import Observed

_CURE = (
    "Under a JAX transformation sizes must be known when tracing. Call the function outside of it, "
    "where each call gives the size that it has; or give its results a bound, to which they are "
    "padded, as in `jax_callable(f, outputs='float32[n<=100]')`; or let it return a result of "
    "fixed size, such as `torch.where(mask, x, 0)` together with the mask."
)


def infer_with_symbols(
    function: FlatCall,
    inputs: Sequence[ArraySig],
    device: str,
    label: str,
    closure: ClosureState,
    attempts: list[Attempt],
    static: Sequence[Any] = (),
) -> Inference | None:
    """The outputs of a function that looks at values, or has steps of sizes that follow from them.

    Args:
        function: What to evaluate.
        inputs: Its inputs.
        device: ``cpu`` or ``cuda``.
        label: The callable's name, for messages.
        closure: What it closes over.
        attempts: The ways that failed before; this one joins them if it fails.
        static: Static arguments, among which may be random generators.

    Returns:
        The outputs, or None where it does something else for other values.

    Raises:
        DynamicSizeError: Sizes of outputs follow from values.
    """
    if not any(looks_at_values(attempt.error) for attempt in attempts):
        return None
    mode = symbolic_mode()

    @contextlib.contextmanager
    def surroundings() -> Iterator[None]:
        with with_symbolic_sizes(), AnswersWatch(mode.shape_env):
            yield

    draws, observed = DrawWatch(Generators.around(closure, static)), Observed()
    try:
        with closure.locks.alone(), tracing, tracing_flags(""):
            found, leaves = evaluate(
                *(function, inputs, device, label, closure, "symbols"),
                *(mode, observed, draws, surroundings),
            )
            for refusal in mode.shape_env.refusals:
                raise ValuesReadError(refusal)  # the function went on without an answer
    except BridgeError:
        raise
    except Exception as error:
        attempts.append(Attempt("symbols", error))
        take_back_after(error, observed)
        return None
    dynamic = {
        index: f"{str(leaf.dtype).removeprefix('torch.')}[{_sizes(leaf)}]"
        for index, leaf in enumerate(leaves)
        if not all(isinstance(size, int) for size in leaf.shape)
    }
    leaves.clear()
    if dynamic:
        kept_fakes(observed)
        raise DynamicSizeError(_words(label, dynamic, attempts[0].error), callable_name=label)
    kept = kept_fakes(observed)
    if kept is not None:
        attempts.append(Attempt("symbols", kept))
        return None
    return replace(found, failures=tuple(attempt.words for attempt in attempts))


def _words(label: str, dynamic: dict[int, str], error: BaseException) -> str:
    outputs = ", ".join(f"output {index}: {words}" for index, words in dynamic.items())
    reader = reader_in(error)
    by = f" ({reader}{users_line(error)})" if reader else users_line(error)
    return (
        f"{label}: expected outputs whose sizes follow from the arguments' shapes; got {outputs}, "
        f"where `?` follows from values{by}. {_CURE}"
    )


def refused_by_xla(error: DynamicSizeError) -> DynamicSizeError:
    """The same where XLA is to run the function, which bounds do not help either."""
    words = str(error).removesuffix(_CURE)
    cure = (
        "`backend: xla` needs sizes that are known when planning: say `eager`, also with a bound."
    )
    return DynamicSizeError(f"{words}{cure}", callable_name=error.callable_name)


def other_sizes(label: str, runs: str) -> str:
    """Words on a function of which two runs with the same shapes gave results of other sizes."""
    return (
        f"{label}: expected outputs whose sizes follow from the arguments' shapes; but {runs} gave "
        f"other ones. {_CURE}"
    )


def _sizes(leaf: torch.Tensor) -> str:
    return ", ".join(str(size) if isinstance(size, int) else "?" for size in leaf.shape)
