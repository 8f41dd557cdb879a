"""Graphs of functions that need no gradient of their own: pushforwards, repeats, batched calls."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch

from ..._compat.own_context import own_context
from ..._compat.torch import autograd_graph
from ..._compat.torch.capture.export_flags import tracing_flags
from ..._compat.torch.capture.graphs import OnDevice, constants_of, drawn_shapes, trace_graph
from ..._compat.torch.capture.tracing import abstract_surroundings, tracing
from ..._compat.torch.dispatch_keys import dispatch_keys_put_back
from ..._compat.torch.dynamo import uncompiled
from ..._compat.torch.fake_tensors import fake_tensor_mode, is_fake, symbolic_mode
from ..._compat.torch.func_transforms import unwarned_fallbacks
from ..._compat.torch.operators.attention import PlainAttention
from ..._compat.torch.operators.higher_order import CallMode
from ..._compat.torch.operators.recurrent_layers import PlainRnns
from ..._compat.torch.symbolic_sizes import with_symbolic_sizes
from ..._compat.torch.value_symbols import AnswersWatch
from ...errors import LackingDerivativeError
from ...first_line import first_line
from ...planner.array_signature import ArraySig
from ...planner.output_inference import Flags
from ..inspection.deep_contents import DeepContents
from ..modules.recorded_calls import recording, unrecorded
from ..observe.abstract_evaluation import fake_inputs
from .same_traces import same_graphs
from .tensor_function import Core, TensorFunction
from .unrecorded_backward import refuse_lacking

T = TypeVar("T")


class NotCapturedError(RuntimeError):
    """A graph could not be captured; the message says why."""


@contextlib.contextmanager
def abstractly(
    fn: TensorFunction, plain_attention: bool, flags: Flags | None = None
) -> Iterator[Any]:
    """A fake tensor mode in surroundings that are put back; failures are NotCapturedError.

    Args:
        fn: What is evaluated.
        plain_attention: Without fused attention kernels.
        flags: What code is told that asks whether it is traced; None: what `fn` says.
    """
    if flags is None:
        flags = fn.flags()  # before any lock: it may have to trace first
    # The lock of tracing is the last that anybody takes. Alone: the evaluation runs the function.
    with fn.closure.locks.alone(), tracing:
        yield from _alone(fn, plain_attention, flags)


def _alone(fn: TensorFunction, plain_attention: bool, flags: Flags) -> Iterator[Any]:
    # The function's own Python code runs, and may leave fakes in what it closes over.
    snapshot = fn.closure.snapshot()
    # Few functions keep anything, and of these the first evaluation has told.
    deep = DeepContents(fn.closure.roots() if fn.inference.updates_state else ())
    surroundings = PlainAttention if plain_attention else contextlib.nullcontext
    symbols = fn.inference.how == "fake-with-symbols"
    mode = symbolic_mode() if symbols else fake_tensor_mode()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(dispatch_keys_put_back())
            stack.enter_context(own_context())
            stack.enter_context(unrecorded())
            stack.enter_context(surroundings())
            stack.enter_context(abstract_surroundings())
            stack.enter_context(uncompiled())
            stack.enter_context(tracing_flags(flags))
            stack.enter_context(unwarned_fallbacks())
            # A fused LSTM, traced below autograd, does not save what its backward needs.
            stack.enter_context(PlainRnns())
            stack.enter_context(mode)
            if symbols:
                stack.enter_context(with_symbolic_sizes())
                stack.enter_context(AnswersWatch(mode.shape_env))
            # The innermost, so that it sees ops before fakes are made.
            ops = OnDevice(fn.device)
            stack.enter_context(ops)
            yield mode
            for refusal in (*ops.refusals, *(mode.shape_env.refusals if symbols else ())):
                raise NotCapturedError(
                    f"it goes on where values cannot be read, as it may not otherwise: {refusal}"
                )
    except (NotCapturedError, LackingDerivativeError):
        raise
    except Exception as error:
        # Whatever a function meets on fakes: another way may do.
        raise NotCapturedError(first_line(error)) from error
    finally:
        snapshot.restore(flags=bool(flags))
        deep.take_fakes_back()


def capture(
    fn: TensorFunction,
    core: Core,
    inputs: Sequence[ArraySig],
    outputs: Sequence[ArraySig],
    *,
    plain_attention: bool,
) -> Core:
    """The graph of ``core``, which computes below autograd, functorch and autocast.

    Args:
        fn: What it belongs to: surroundings and device.
        core: What to trace.
        inputs: Its inputs.
        outputs: What it must return.
        plain_attention: Trace without fused attention kernels.

    Raises:
        NotCapturedError: It cannot be traced, or returns something else.
    """
    # XLA fuses by itself, and has no kernels of torch's.
    for_xla = fn.terms.backend == "xla"
    with abstractly(fn, plain_attention or for_xla) as mode:
        fakes = fake_inputs(mode, inputs, fn.device)
        graph = trace_graph(
            lambda *tensors: list(core(*tensors)), fakes, fn.device, decomposed=for_xla
        )
        refuse_other_draws(fn, graph)
        results = [node.meta["val"] for node in graph.graph.output_node().args[0]]
        found = [(tuple(value.shape), value.dtype) for value in results]
        wanted = [(sig.shape, getattr(torch, sig.torch_dtype)) for sig in outputs]
        if found != wanted:
            # `abstractly` makes a NotCapturedError of it.
            raise RuntimeError(f"expected results {wanted}, got {found}")
        # As the next call would, before anything is put back.
        again = None
        if fn.inference.leaves_changed:
            again = trace_graph(
                lambda *tensors: list(core(*tensors)), fakes, fn.device, decomposed=for_xla
            )
    # These are of this evaluation, and have no memory when the graph runs.
    if any(is_fake(value) for value in constants_of(graph)):
        raise NotCapturedError("the function keeps tensors that it makes")
    if again is not None and not same_graphs(graph, again):
        raise NotCapturedError(
            f"it changes {fn.inference.leaves_changed}, and does something else the next time"
        )
    found_core: Callable[..., Sequence[torch.Tensor]] = graph
    return found_core


def draws_of_batch(fn: TensorFunction, moving: bool) -> Literal["different", "same"]:
    """Whether the elements of a batch draw numbers of their own, whose inputs are ``moving``.

    Raises:
        NotCapturedError: All are to draw what a single call draws, and torch.vmap would not.
    """
    if not moving:
        return "same"
    # Without a key there is no single draw that a batch would have to repeat.
    if not fn.keyed:
        return "different"
    if fn.inference.random and fn.terms.backend != "xla":
        if fn.inference.strided_draws:
            raise NotCapturedError(
                "torch.vmap: it fills tensors that are not row-major with random numbers, in "
                "another order than a single call"
            )
        if fn.device != "cpu":
            raise NotCapturedError(
                "torch.vmap: random numbers of a GPU depend on how they are asked for"
            )
    return "same"


def refuse_other_draws(fn: TensorFunction, graph: Any) -> None:
    """Object to a graph that would not draw from a key what the function draws from it.

    Batching rules differ from op to op: some that torch lacks draw anew for every element.

    Raises:
        NotCapturedError: It draws other tensors.
    """
    if not (fn.keyed and fn.inference.random):
        return
    drawn = drawn_shapes(graph)
    # Parts of a derivative may draw nothing.
    if drawn and drawn != fn.inference.drawn:
        raise NotCapturedError(
            f"it draws random numbers of shapes {[list(shape) for shape in drawn]} in place of "
            f"{[list(shape) for shape in fn.inference.drawn]}"
        )


def dependent_outputs(fn: TensorFunction, wrt: Sequence[int]) -> tuple[int, ...]:
    """The outputs that depend differentiably on these inputs, as far as can be told.

    Raises:
        LackingDerivativeError: One of them comes from an operation without a derivative.
    """
    possible = tuple(i for i, sig in enumerate(fn.outputs) if sig.differentiable)
    if not fn.capturable:
        return possible

    def look(function: Core, fakes: Sequence[torch.Tensor]) -> tuple[int, ...]:
        leaves = function(*fakes)
        found = tuple(index for index in possible if leaves[index].requires_grad)
        refuse_lacking(fn.label, [leaves[index] for index in found])
        return found

    found = on_moving_fakes(fn, wrt, look)
    return possible if found is None else found


def hooks_its_tensors(fn: TensorFunction, wrt: Sequence[int]) -> bool:
    """Whether it puts hooks on what depends on these inputs, which may change gradients."""

    def look(function: Core, fakes: Sequence[torch.Tensor]) -> bool:
        watch = _HookWatch()
        with watch:
            function(*fakes)
        return watch.seen

    return bool(on_moving_fakes(fn, wrt, look))


class _HookWatch(CallMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = False
        self._depth = 0

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        self.seen |= func in autograd_graph.LEADS_TO_HOOKS and not self._depth
        return func(*args, **kwargs)

    def going_back(self, recorded: bool) -> None:
        # Torch itself asks for nodes there.
        self._depth += 1

    def went_back(self, recorded: bool) -> None:
        self._depth -= 1


def on_moving_fakes(
    fn: TensorFunction, wrt: Sequence[int], look: Callable[[Core, Sequence[torch.Tensor]], T]
) -> T | None:
    """What is seen of a function on fakes, where the inputs ``wrt`` require grad.

    Args:
        fn: The function.
        wrt: Inputs that move.
        look: Runs the core that it is given on the fakes that it is given.

    Returns:
        What ``look`` returns; None where none can be traced.
    """
    # Fused kernels first, if it runs with them: plain attention where these cannot be traced.
    ways = (fn.plain_attention, True) if fn.inference.attention else (False,)
    for function, plain in itertools.product(fn.differentiable_cores, ways):
        try:
            with abstractly(fn, plain) as mode:
                fakes = fake_inputs(mode, fn.inputs, fn.device)
                for index in wrt:
                    fakes[index].requires_grad_()
                with torch.enable_grad(), recording():
                    return look(function, fakes)
        except NotCapturedError:
            continue
    return None


def is_once_differentiable(fn: TensorFunction) -> bool:
    """Whether a backward inside is marked so; under ``torch.func`` it then counts as constant."""
    if not fn.capturable:
        return False  # the autograd engine looks for itself
    for function in fn.differentiable_cores:
        try:
            with abstractly(fn, fn.plain_attention) as mode:
                fakes = fake_inputs(mode, fn.inputs, fn.device)
                for fake, sig in zip(fakes, fn.inputs, strict=True):
                    # Torch refuses this for integers.
                    fake.requires_grad_(sig.differentiable)
                with torch.enable_grad(), recording():
                    return autograd_graph.is_once_differentiable(list(function(*fakes)))
        except NotCapturedError:
            continue
    return False
