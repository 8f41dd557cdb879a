"""Find the outputs of a torch function without running it, or by one careful run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..._compat.own_context import own_context
from ..._compat.torch.capture.export_flags import flags_matter, raised_by_torch, tracing_flags
from ..._compat.torch.capture.tracing import abstract_surroundings, tracing
from ..._compat.torch.dispatch_keys import dispatch_keys_put_back
from ..._compat.torch.dynamo import uncompiled
from ..._compat.torch.fake_tensors import (
    ValuesReadError,
    cannot_be_fake,
    fake_tensor_mode,
    looks_at_values,
)
from ..._compat.torch.modules import has_backward_hooks
from ..._compat.torch.operators.attention import PlainAttention
from ..._compat.torch.operators.higher_order import higher_order_by_code
from ..._compat.torch.operators.recurrent_layers import PlainRnns
from ..._compat.torch.tensors import version_of
from ...errors import BridgeError, MutationError, NoValuesError, OutputError
from ...first_line import first_line
from ...planner.array_signature import ArraySig, OutputMeta
from ...planner.output_inference import FLAG_WORDS, Flags, How, Inference
from ..closure.closure_state import ClosureState
from ..handler.failure_messages import clear_frames, mutation_message
from ..inspection.deep_contents import DeepContents
from ..randomness.generator_states import Generators
from ..randomness.random_draws import DrawWatch
from .attribute_swaps import SwapWatch
from .left_fakes import alive, take_back
from .watched_run import CallWatch, Observed, OpWatch
from .written_copies import written_copies

# Flat tensors in; flat leaves and an opaque, hashable structure out.
FlatCall = Callable[..., tuple[list[Any], Hashable]]

# From what a call sees itself to what differs most.
_FLAGS: tuple[Flags, ...] = ("", "unchecked", "compiling", "exporting")


@dataclass(frozen=True)
class Attempt:
    """One way that did not work.

    Attributes:
        how: The way.
        error: How it ended.
        flags: What code was told meanwhile that asks whether it is traced.
        values: The made-up values that the function was run on, in words.
    """

    how: How
    error: Exception
    flags: Flags = ""
    values: str = ""

    @property
    def words(self) -> str:
        """One line for messages and `explain`."""
        return f"{self.way}: {self.failure}"

    @property
    def way(self) -> str:
        """Which way it was."""
        values = f" {self.values}" if self.values else ""
        return f"{self.how}{values}{FLAG_WORDS[self.flags]}"

    @property
    def failure(self) -> str:
        """How it ended, in one line."""
        return first_line(self.error)


def fake_inputs(mode: Any, inputs: Sequence[ArraySig], device: str) -> list[torch.Tensor]:
    """Tensors of these shapes and (torch-side) dtypes without memory."""
    with mode:
        return [
            torch.empty(sig.shape, dtype=getattr(torch, sig.torch_dtype), device=device)
            for sig in inputs
        ]


def infer_abstractly(
    function: FlatCall,
    inputs: Sequence[ArraySig],
    device: str,
    label: str,
    closure: ClosureState,
    static: Sequence[Any] = (),
) -> tuple[Inference | None, Observed, list[Attempt]]:
    """Evaluate without memory, in one way after another until one works.

    Args:
        function: What to evaluate.
        inputs: Its inputs.
        device: ``cpu`` or ``cuda``.
        label: The callable's name, for messages.
        closure: What it closes over.
        static: Static arguments, among which may be random generators.

    Returns:
        What was found (None if no way worked), what was seen on the way, and the ways that
        failed.

    Raises:
        MutationError: The function writes to an input.
        OutputError: It returns something that is no tensor.
    """
    attempts: list[Attempt] = []
    generators = Generators.around(closure, static)
    ways: tuple[tuple[How, Callable[[], Any]], ...] = (
        ("fake", contextlib.nullcontext),
        ("fake-plain-attention", PlainAttention),
    )
    if device == "cuda":
        # cuDNN asks where the weights of recurrent layers lie, and fakes lie nowhere.
        ways = (*ways, ("fake-without-cudnn", functools.partial(PlainRnns, cudnn=True)))
    # What code asked of whether it is traced, in each way that torch itself found no end of.
    asked: dict[How, set[str]] = {}
    higher_order = False
    for flags, (how, surroundings) in itertools.product(_FLAGS, ways):
        # What nobody asks makes no difference. And where it goes without flags, calls run the same.
        if flags and flags not in asked.get(how, ()):
            continue
        # For each way anew: what a failed one saw is not what will run.
        observed = Observed()
        try:
            # No call on another thread may see what the evaluation changes for its length.
            with (
                closure.locks.alone(),
                tracing,
                tracing_flags(flags) as questions,
            ):
                # The leaves are let go of at once: fakes that are left are kept by the function.
                inference = evaluate(
                    function,
                    inputs,
                    device,
                    label,
                    closure,
                    how,
                    fake_tensor_mode(),
                    observed,
                    DrawWatch(generators),
                    surroundings,
                )[0]
        # What is wrong with the function itself is so in every way.
        except BridgeError:
            raise
        except Exception as error:
            attempts.append(Attempt(how, error, flags))
            take_back_after(error, observed)
            higher_order |= observed.higher_order
            # Checks that it makes itself must not be left out.
            if _cannot_trace(error):
                asked[how] = questions.flags | asked.get(how, set())
            else:
                asked.pop(how, None)
            continue
        kept = kept_fakes(observed)
        if kept is not None:
            attempts.append(Attempt(how, kept, flags))
            continue
        failures = tuple(attempt.words for attempt in attempts)
        found = replace(inference, failures=failures, flags=flags, asks=questions.outside)
        found = replace(found, updates_state=found.updates_state or observed.kept)
        return found, observed, attempts
    unseen = Observed(untraced=True, generators=generators, higher_order=higher_order)
    return None, unseen, attempts


def kept_fakes(observed: Observed) -> Exception | None:
    """What is wrong with an evaluation after which fakes are left; to be asked without its results.

    One that the function keeps would meet real calls, and has no memory. What cannot be put back
    as it was, only a real run can set right.
    """
    around, observed.around = observed.around, None
    if not alive(observed.made):
        return None
    observed.kept = True
    if around is not None and take_back(observed.made, around):
        return None
    return RuntimeError("the function keeps tensors that it makes")


def take_back_after(error: Exception, observed: Observed) -> None:
    """Take fakes out of where a function has put them that has then failed."""
    clear_frames(error)  # which hold what was made on the way
    kept_fakes(observed)


def _cannot_trace(error: Exception) -> bool:
    """Whether an evaluation failed at what torch cannot do, rather than at a check."""
    return looks_at_values(error) or cannot_be_fake(error) or raised_by_torch(error)


def evaluate(
    function: FlatCall,
    inputs: Sequence[ArraySig],
    device: str,
    label: str,
    closure: ClosureState,
    how: How,
    mode: Any,
    observed: Observed,
    draws: DrawWatch,
    surroundings: Callable[[], Any] = contextlib.nullcontext,
) -> tuple[Inference, list[torch.Tensor]]:
    """One abstract evaluation, which leaves nothing behind in the function's surroundings.

    Args:
        function: What to evaluate.
        inputs: Its inputs.
        device: ``cpu`` or ``cuda``.
        label: The callable's name, for messages.
        closure: What it closes over.
        how: Which way this is.
        mode: What makes the fakes.
        observed: Takes what is seen.
        draws: Watches what it draws.
        surroundings: Entered around it.

    Returns:
        What was found, and the flat results.

    Raises:
        MutationError: The function writes to an input.
        OutputError: It returns something that is no tensor.
        Exception: Whatever the function raises.
    """
    fakes = fake_inputs(mode, inputs, device)
    observed.made += map(weakref.ref, fakes)
    snapshot = closure.snapshot()
    observed.around = DeepContents(closure.roots())
    swaps = SwapWatch(closure)
    kept = False
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(dispatch_keys_put_back())
            stack.enter_context(own_context())
            stack.enter_context(surroundings())
            stack.enter_context(abstract_surroundings())
            stack.enter_context(uncompiled())
            stack.enter_context(CallWatch(observed, swaps))
            stack.enter_context(mode)
            # The innermost, so that it sees real tensors before the mode makes fakes of them.
            with OpWatch(observed, mode, fakes, swaps, draws):
                leaves, structure = _with_values_asked_for(function, fakes)
        # Before anything is put back: what the function left changed counts.
        swaps.finish()
        observed.modules = list(swaps.used)
        observed.everywhere = swaps.everywhere
    finally:
        # Before attributes are put back: Python's generators keep a part of their state in one.
        draws.finish()
        kept = snapshot.restore(flags=flags_matter())
    observed.generators = draws.used
    observed.impure_draws = draws.impure
    for index, fake in enumerate(fakes):
        if version_of(fake) > 0:
            observed.written_inputs.add(index)
    _refuse_mutation(observed.written_inputs, inputs, label)
    found = Inference(
        read_outputs(leaves, label),
        structure,
        how,
        closes_over_grad=observed.closes_over_grad,
        may_be_lazy=observed.complex_numbers or any(leaf.is_neg() for leaf in leaves),
        random=draws.random,
        live_draws=draws.live,
        drawn=tuple(draws.shapes),
        strided_draws=draws.strided,
        updates_state=bool(observed.updated) or kept,
        grads_inside=observed.grads_inside,
        own_backwards=observed.own_backwards,
        backward_hooks=has_backward_hooks([*closure.all_modules, *observed.modules]),
        switches_grad=observed.switches_grad,
        attention=observed.attention or how == "fake-plain-attention",
        swaps=", ".join(swaps.changed),
        leaves_changed=", ".join(swaps.left),
        higher_order=observed.higher_order,
    )
    return found, leaves


def _with_values_asked_for(function: FlatCall, fakes: Sequence[torch.Tensor]) -> Any:
    try:
        return function(*fakes)
    except NoValuesError as error:  # it hands tensors to JAX itself
        raise ValuesReadError(str(error)) from error


def infer_by_running(
    function: FlatCall,
    tensors: Sequence[torch.Tensor],
    inputs: Sequence[ArraySig],
    how: How,
    failures: Sequence[str],
    label: str,
) -> tuple[Inference, list[torch.Tensor]]:
    """Run the function once on copies and read off what it returns.

    Args:
        function: What to run.
        tensors: One a input, in the dtypes that torch is to see; not written to.
        inputs: Their signatures.
        how: Whose run this is, for `explain`.
        failures: Words on what was tried before.
        label: The callable's name, for messages.

    Returns:
        What was found, and the flat results.

    Raises:
        MutationError: The function wrote to a copy.
        OutputError: It returned something that is no tensor.
        Exception: Whatever the function raises.
    """
    # Numpy can write to what it shares with torch, and no version tells: contents are compared.
    copies = [tensor.clone() for tensor in tensors]
    observed = Observed()
    before = torch.get_rng_state()
    with higher_order_by_code(), CallWatch(observed):
        leaves, structure = function(*copies)
    drew = not torch.equal(before, torch.get_rng_state())
    _refuse_mutation(written_copies(tensors, copies), inputs, label)
    outputs = read_outputs(leaves, label)
    inference = Inference(
        outputs,
        structure,
        how,
        tuple(failures),
        random=drew,
        grads_inside=observed.grads_inside,
        higher_order=observed.higher_order,
    )
    return inference, leaves


def read_outputs(leaves: Sequence[Any], label: str) -> tuple[OutputMeta, ...]:
    """Shapes and dtypes of flat results.

    Raises:
        OutputError: A result is no tensor.
    """
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.Tensor):
            cure = "Return it as a tensor, with torch.as_tensor(...)."
            if not isinstance(leaf, (bool, int, float, complex, str)):
                cure = (
                    "Return its tensors, or tell torch how it is made of them: "
                    "torch.utils._pytree.register_pytree_node."
                )
            raise OutputError(
                f"{label}, output {index}: expected a torch.Tensor, got {type(leaf).__name__} "
                f"({leaf!r:.60}). {cure}",
                callable_name=label,
            )
    return tuple(
        OutputMeta(tuple(leaf.shape), str(leaf.dtype).removeprefix("torch.")) for leaf in leaves
    )


def _refuse_mutation(written: set[int], inputs: Sequence[ArraySig], label: str) -> None:
    if written:
        which = tuple(sorted(written))
        path, *others = (inputs[index].path for index in which)
        words = mutation_message(label, path, others)
        raise MutationError(words, callable_name=label, written=which)
