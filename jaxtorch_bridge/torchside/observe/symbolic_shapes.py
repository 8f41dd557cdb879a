"""Evaluate a function abstractly whose arguments have sizes that are not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from ..._compat.torch.capture.export_flags import tracing_flags
from ..._compat.torch.capture.tracing import tracing
from ..._compat.torch.fake_tensors import fake_tensor_mode
from ..._compat.torch.symbolic_sizes import SIZE_CALLS, Symbols, with_symbolic_sizes
from ...errors import BridgeError, DynamicSizeError
from ...planner.array_signature import ArraySig, OutputMeta
from ...planner.output_inference import Inference
from ..closure.closure_state import ClosureState
from ..randomness.generator_states import Generators
from ..randomness.random_draws import DrawWatch
from .abstract_evaluation import Attempt, FlatCall, evaluate, kept_fakes, take_back_after
from .watched_run import Observed


class Substitute(Protocol):
    """A size, what stands for its variables, and for its calls (``floordiv``), to another size."""

    def __call__(
        self, size: Any, values: Mapping[str, Any], calls: Mapping[str, Any] | None = None
    ) -> Any:
        """The size; without ``calls`` numbers stand for the variables."""


# What sizes are taken to be where code asks for them, times 1, 2, ...: the first that is possible.
# None is a special case (0, 1); most can be halved and cut in three, no two are equal.
_TAKEN = (2520, 840, 60, 24, 12, 6, 4, 3, 2)
# Where formulas are compared with what the function gives: special cases, odd and even, small and
# larger than what code may ask for.
_TRIED = (1, 2, 3, 7, 12, 60, 1001)


def infer_with_sizes(
    function: FlatCall,
    inputs: Sequence[ArraySig],
    device: str,
    label: str,
    closure: ClosureState,
    variables: Mapping[str, Any],
    substitute: Substitute,
    possible: Callable[[Mapping[str, int]], bool],
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
        possible: Whether what the caller has said of the variables allows some numbers.
        static: Static arguments, among which may be random generators.

    Raises:
        DynamicSizeError: Torch cannot say for all sizes at once.
    """
    symbols = Symbols(_taken_for(variables, possible))
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
    evaluation = (function, inputs, device, label, closure)
    for values in _numbers_for(variables):
        if possible(values):
            _compare(evaluation, outputs, values, substitute, generators)
    return replace(found, outputs=outputs), observed


def _taken_for(
    variables: Mapping[str, Any], possible: Callable[[Mapping[str, int]], bool]
) -> dict[str, int]:
    ways = [{name: size * n for n, name in enumerate(variables, 1)} for size in _TAKEN]
    return next(filter(possible, ways), ways[0])


def _numbers_for(variables: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    for number in _TRIED:
        yield dict.fromkeys(variables, number)
        if len(variables) > 1:
            yield {name: number + place for place, name in enumerate(variables)}


def _compare(
    evaluation: tuple[FlatCall, Sequence[ArraySig], str, str, ClosureState],
    outputs: Sequence[OutputMeta],
    values: Mapping[str, int],
    substitute: Substitute,
    generators: Generators,
) -> None:
    """Hold the outputs' formulas against an evaluation with numbers in place of the variables.

    Code that asks for a size (``if len(x) > 50``, ``int(0.5 * len(x))``) is given one that was made
    up, and its results then have the sizes of that branch.
    """
    function, inputs, device, label, closure = evaluation

    def number(size: Any) -> int:
        return int(substitute(size, values))

    numbers = [replace(sig, shape=tuple(map(number, sig.shape))) for sig in inputs]
    if any(size < 0 for sig in numbers for size in sig.shape):
        return
    observed = Observed()
    try:
        with closure.locks.alone(), tracing, tracing_flags(""):
            found, leaves = evaluate(
                *(function, numbers, device, label, closure, "fake"),
                *(fake_tensor_mode(), observed, DrawWatch(generators)),
            )
        leaves.clear()
    except Exception as error:  # which a call with these sizes would raise as well
        take_back_after(error, observed)
        return
    kept_fakes(observed)
    expected = [tuple(map(number, output.shape)) for output in outputs]
    if [output.shape for output in found.outputs] != expected:
        sizes = ", ".join(f"{name}={value}" for name, value in values.items())
        shapes = " and ".join(str(list(output.shape)) for output in found.outputs)
        planned = " and ".join(str(list(output.shape)) for output in outputs)
        why = (
            f"it asks what the sizes are: with {sizes} its results are {shapes}, and not {planned}"
        )
        raise _refused(label, inputs, why)


def _translated(symbols: Symbols, leaf: torch.Tensor, variables: Mapping[str, Any]) -> OutputMeta:
    shape = tuple(symbols.translate(size, dict(variables)) for size in leaf.shape)
    return OutputMeta(shape, str(leaf.dtype).removeprefix("torch."))


def _refused(label: str, inputs: Sequence[ArraySig], why: str) -> DynamicSizeError:
    arguments = ", ".join(f"`{sig.path}` {sig}" for sig in inputs)
    return DynamicSizeError(
        f"{label}: expected outputs that follow from {arguments} for all sizes at once; {why}. "
        "Give the outputs as formulas in a contract (`outputs: {y: float32[2*b, 3]}`), say in the "
        "constraints of `symbolic_shape` which sizes there are, or export once for each size.",
        callable_name=label,
    )
