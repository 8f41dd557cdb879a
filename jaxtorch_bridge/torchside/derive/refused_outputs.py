"""Results whose derivative torch takes for zero though it is not, each judged by itself.

JAX asks for a derivative by inputs that move, and says only later which results it uses. So these
are told ahead, and refused when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ...errors import DifferentiationError
from ..functions.graph_capture import on_moving_fakes
from ..functions.tensor_function import Core, TensorFunction
from ..functions.unrecorded_backward import nothing_recorded
from ..observe.hidden_gradients import Hidden, HiddenGradients, JudgedRuns, Reason

# By output, why it must not be differentiated.
Refused = Mapping[int, str]
NOTHING_REFUSED: Refused = {}


def refused_outputs(fn: TensorFunction, wrt: Sequence[int]) -> Refused:
    """Results that something has a part in which torch takes for a constant.

    Nothing for a function that cannot be evaluated abstractly: its runs tell; see `JudgedRuns`.
    """
    inference = fn.inference
    # What a custom function computes is lost when its backward is differentiated, and not before.
    doubtful = inference.grads_inside or (inference.own_backwards and fn.order > 0)
    if not (doubtful and fn.capturable):
        return NOTHING_REFUSED
    return {
        index: hidden_words(fn, wrt, {index: reason})
        for index, reason in _hidden(fn, wrt).items()
        if fn.outputs[index].differentiable
    }


def refuse_all(fn: TensorFunction, wrt: Sequence[int], refused: Refused) -> None:
    """Object to a derivative none of whose results could be used.

    Raises:
        DifferentiationError: All that have a derivative are refused.
    """
    possible = [index for index, sig in enumerate(fn.outputs) if sig.differentiable]
    if possible and refused and all(index in refused for index in possible):
        raise DifferentiationError(next(iter(refused.values())))


def hidden_words(fn: TensorFunction, wrt: Sequence[int], hidden: Hidden) -> str:
    """Words on results that must not be differentiated."""
    where = f" [{fn.terms.depth_at}]" if fn.terms.depth_at else ""
    inputs = ", ".join(f"`{fn.inputs[index].path}`" for index in wrt)
    results = ", ".join(f"`{fn.outputs[index].path}`" for index in hidden)
    several = len(fn.outputs) > 1
    what = f"{results} by {inputs}" if several else f"by {inputs}"
    # Forward mode gives a tangent of a single result whether or not it is used.
    stop = results if several else inputs
    return (
        f"{fn.label}: cannot differentiate {what}: "
        f"{_REASONS[next(iter(hidden.values()))]}, or stop the gradient of {stop} with "
        f"jax.lax.stop_gradient.{where}"
    )


_REASONS: Mapping[Reason, str] = {
    "gradient": (
        "the function calls torch.autograd.grad without create_graph=True, so torch takes what "
        "comes out as a constant and the gradient would be silently wrong. Pass create_graph=True "
        "inside"
    ),
    "gradient beside others": (
        "the function calls torch.autograd.grad without create_graph=True, so torch takes what "
        "comes out as a constant and the gradient would be silently wrong. Pass create_graph=True "
        "inside, or go on with .detach() of what comes out if a constant is meant"
    ),
    "function": (
        "a backward inside is not differentiable (it detaches, or uses what its forward has "
        "computed, which torch takes for a constant), so the gradient would be silently wrong. "
        "Have that backward compute it from what `ctx.save_for_backward` saved of the inputs"
    ),
}


def refuse_hidden(
    fn: TensorFunction, wrt: Sequence[int], outs: Sequence[int], hidden: Hidden
) -> None:
    """Object to what a run has shown to be hidden.

    Raises:
        DifferentiationError: It is among ``outs``.
    """
    asked = {index: hidden[index] for index in outs if index in hidden}
    if asked:
        raise DifferentiationError(hidden_words(fn, wrt, asked))


def refusing_hidden(
    function: Core, fn: TensorFunction, wrt: Sequence[int], outs: Sequence[int]
) -> Core:
    """A function that can only be judged while it runs, objecting to hidden ones among ``outs``."""
    judged = JudgedRuns(always=fn.inference.grads_inside)

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        results, found = judged.run(function, tensors, wrt)
        refuse_hidden(fn, wrt, outs, found.hidden)
        if found.left and not any(result.requires_grad for result in results):
            raise nothing_recorded(fn.label)
        return results

    return run


def _hidden(fn: TensorFunction, wrt: Sequence[int]) -> Hidden:
    def look(function: Core, fakes: Sequence[torch.Tensor]) -> Hidden:
        with HiddenGradients([fakes[index] for index in wrt]) as watch:
            leaves = function(*fakes)
        return watch.of(leaves)

    found = on_moving_fakes(fn, wrt, look)
    if found is not None:
        return found
    # Nobody can tell.
    reason: Reason = "gradient" if fn.inference.grads_inside else "function"
    return dict.fromkeys(range(len(fn.outputs)), reason)
