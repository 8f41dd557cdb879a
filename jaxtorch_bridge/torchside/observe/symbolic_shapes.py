"""Evaluate a function abstractly whose arguments have sizes that are not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..._compat.torch.capture.export_flags import tracing_flags
from ..._compat.torch.capture.tracing import tracing
from ..._compat.torch.symbolic_sizes import SIZE_CALLS, Symbols, with_symbolic_sizes
from ...errors import BridgeError, DynamicSizeError
from ...planner.array_signature import ArraySig, OutputMeta
from ...planner.output_inference import Inference
from ..closure.closure_state import ClosureState
from ..randomness.generator_states import Generators
from ..randomness.random_draws import DrawWatch
from .abstract_evaluation import Attempt, FlatCall, evaluate, kept_fakes, take_back_after
from .watched_run import Observed

# A size, what stands for its variables, and for its calls (``floordiv``), to a size of torch.
Substitute = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]


def infer_with_sizes(
    function: FlatCall,
    inputs: Sequence[ArraySig],
    device: str,
    label: str,
    closure: ClosureState,
    variables: Mapping[str, Any],
    substitute: Substitute,
    static: Sequence[Any] = (),
) -> tuple[Inference, Observed]:
    """The outputs as formulas of the inputs' sizes.

    Args:
        function: What to evaluate.
        inputs: Its inputs, with symbolic sizes.
        device: ``cpu`` or ``cuda``.
        label: The callable's name, for messages.
        closure: What it closes over.
        variables: The variables in these sizes, by name.
        substitute: Puts other things in their place.
        static: Static arguments, among which may be random generators.

    Raises:
        DynamicSizeError: Torch cannot say for all sizes at once.
    """
    symbols = Symbols(list(variables))
    observed = Observed()
    generators = Generators.around(closure, static)
    try:
        torchs = [
            replace(sig, shape=tuple(substitute(s, symbols.sizes, SIZE_CALLS) for s in sig.shape))
            for sig in inputs
        ]
        with closure.locks.alone(), tracing, tracing_flags(""):
            found, leaves = evaluate(
                *(function, torchs, device, label, closure, "fake"),
                *(symbols.mode, observed, DrawWatch(generators), with_symbolic_sizes),
            )
        outputs = tuple(_translated(symbols, leaf, variables) for leaf in leaves)
        leaves.clear()
    except BridgeError:
        raise
    except Exception as error:
        take_back_after(error, observed)
        why = f"torch could not evaluate it so ({Attempt('fake', error).failure})"
        raise _refused(label, inputs, why) from error
    kept = kept_fakes(observed)
    if kept is not None:
        raise _refused(label, inputs, str(kept))
    fixed = symbols.fixed()
    if fixed:
        names = " and ".join(f"`{name}`" for name in fixed)
        why = f"it computes with {names} as a plain number"
        raise _refused(label, inputs, why)
    return replace(found, outputs=outputs), observed


def _translated(symbols: Symbols, leaf: torch.Tensor, variables: Mapping[str, Any]) -> OutputMeta:
    shape = tuple(symbols.translate(size, dict(variables)) for size in leaf.shape)
    return OutputMeta(shape, str(leaf.dtype).removeprefix("torch."))


def _refused(label: str, inputs: Sequence[ArraySig], why: str) -> DynamicSizeError:
    arguments = ", ".join(f"`{sig.path}` {sig}" for sig in inputs)
    return DynamicSizeError(
        f"{label}: expected outputs that follow from {arguments} for all sizes at once; {why}. "
        "Give the outputs as formulas in a contract (`outputs: {y: float32[2*b, 3]}`), or export "
        "once for each size.",
        callable_name=label,
    )
