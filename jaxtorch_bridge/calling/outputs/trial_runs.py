"""Runs of a torch function to see its outputs, where it cannot be evaluated abstractly."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import torch

from ..._compat.torch.fake_tensors import looks_at_values
from ...call_site import caller_level
from ...errors import BridgeError, BridgeWarning, DynamicSizeError, PlanningError
from ...planner.array_signature import ArraySig
from ...planner.output_inference import How, Inference
from ...torchside.closure.closure_state import ClosureState
from ...torchside.closure.locks import generator_locks
from ...torchside.closure.trial_scope import trial
from ...torchside.handler import failure_messages
from ...torchside.observe.abstract_evaluation import Attempt, infer_by_running
from ...torchside.observe.made_up_values import made_up
from ...torchside.observe.symbolic_evaluation import other_sizes
from ...torchside.randomness.generator_seeding import drawing_from_key
from ...transfer import j2t
from ..arguments.sort_leaves import is_array
from ..flat_function import FlatFunction
from ..pytrees import trees

# What draws where a call has a key that is not known yet.
_SOME_KEY = np.zeros(2, np.uint32)
# Of made-up values, how many sets have to agree.
_ENOUGH = 2


class Trials:
    """Runs of one function.

    Args:
        label: The callable's name, for messages.
        example: Arguments to run on where a call's own are not known.
        closure: What the function closes over.
    """

    def __init__(self, label: str, example: tuple[Any, ...] | None, closure: ClosureState) -> None:
        self._label = label
        self._example = example
        self._closure = closure
        self._warned = False

    def run(
        self,
        function: FlatFunction,
        inputs: tuple[ArraySig, ...],
        values: Sequence[Any],
        how: How,
        attempts: Sequence[Attempt],
        key: Any = None,
    ) -> tuple[Inference, list[torch.Tensor]]:
        """Run on copies of these values.

        Args:
            function: Of flat tensors.
            inputs: Its inputs.
            values: One for each.
            how: Whose run it is.
            attempts: What was tried before.
            key: The words of the call's random key, if it takes one.

        Raises:
            TorchExecutionError: The function failed.
        """
        tensors = [
            _as_tensor(value).to(getattr(torch, sig.torch_dtype))
            for value, sig in zip(values, inputs, strict=True)
        ]
        failures = [attempt.words for attempt in attempts]
        try:
            # Not before: what the arrays are computed by may have to wait for these locks.
            with contextlib.ExitStack() as stack:
                stack.enter_context((self._closure.locks | generator_locks()).alone())
                if how in ("example", "made-up"):
                    # Nobody has asked for such a run. Under the locks: what another thread's call
                    # changes must not be taken back with it.
                    stack.enter_context(trial(self._closure))
                # Here and now: the function may call JAX itself, which would be traced as well.
                stack.enter_context(jax.ensure_compile_time_eval())
                if key is not None:
                    stack.enter_context(drawing_from_key(_as_tensor(key)))
                found = infer_by_running(function, tensors, inputs, how, failures, self._label)
        except BridgeError:
            raise
        except Exception as error:
            raise failure_messages.execution_error(self._label, inputs, (), error) from error
        # Not for functions that look at values: of these a run is the only way left.
        seen_to_look = any(looks_at_values(attempt.error) for attempt in attempts)
        if how in ("call", "values") and attempts and not seen_to_look:
            self._warn_once(attempts)
        return found

    def extra_run(
        self,
        function: FlatFunction,
        inputs: tuple[ArraySig, ...],
        attempts: list[Attempt],
        *,
        keyed: bool,
    ) -> Inference:
        """Run on the example, or as the last resort on made-up values.

        Of these two sets that the function accepts have to give the same outputs.

        Raises:
            DynamicSizeError: They give outputs of other sizes.
            PlanningError: There are none that it accepts.
        """
        example = self._example_values(inputs, attempts)
        how: How = "made-up" if example is None else "example"
        tries = {"the example arguments": example} if example is not None else made_up(inputs)
        reason = _reason(attempts)
        key = _SOME_KEY if keyed else None
        found: dict[str, Inference] = {}
        for name, values in tries.items():
            try:
                found[name], _ = self.run(function, inputs, values, how, attempts, key)
            except BridgeError as error:
                # With a cause the function itself failed: one more way that led nowhere.
                cause = error.__cause__
                if not isinstance(cause, Exception):
                    raise
                attempts.append(Attempt(how, cause, values=name if how == "made-up" else ""))
            if len(found) == _ENOUGH:
                break
        if not found:
            raise self._planning_error(inputs, attempts) from attempts[0].error
        (first, inference), *others = found.items()
        for name, other in others:
            if (other.outputs, other.structure) != (inference.outputs, inference.structure):
                raise DynamicSizeError(
                    other_sizes(self._label, f"runs on {first} and on {name}"),
                    callable_name=self._label,
                )
        times = "once more" if len(found) == 1 else "twice more"
        warnings.warn(
            f"{self._label}: the outputs could not be found abstractly ({reason}), so the torch "
            f"function was run {times}, on {' and on '.join(found)}. Give a contract with "
            "outputs, example=(...), or call it once eagerly with these shapes.",
            BridgeWarning,
            stacklevel=caller_level(),
        )
        if how == "made-up":
            random = any(one.random for one in found.values())
            inference = replace(inference, made_up=tuple(found), random=random)
        return inference

    def has_example(self, inputs: tuple[ArraySig, ...]) -> bool:
        """Whether there are example arguments of these shapes."""
        return self._example_values(inputs, []) is not None

    def _example_values(
        self, inputs: tuple[ArraySig, ...], attempts: list[Attempt]
    ) -> list[Any] | None:
        if self._example is None:
            return None
        leaves = [leaf for leaf in trees.flatten(self._example)[0] if _is_any_array(leaf)]
        found = [(tuple(leaf.shape), str(leaf.dtype).removeprefix("torch.")) for leaf in leaves]
        wanted = [(sig.shape, sig.dtype) for sig in inputs]
        # Dtypes need not agree, since `run` casts.
        if [shape for shape, _ in found] == [shape for shape, _ in wanted]:
            return leaves
        attempts.append(
            Attempt("example", PlanningError(f"example has {found}, the call has {wanted}"))
        )
        return None

    def _warn_once(self, attempts: Sequence[Attempt]) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"{self._label}: the outputs could not be found abstractly ({_reason(attempts)}), so "
            "this eager call was run on copies to see them.",
            BridgeWarning,
            stacklevel=caller_level(),
        )

    def _planning_error(
        self, inputs: tuple[ArraySig, ...], attempts: Sequence[Attempt]
    ) -> PlanningError:
        # Each failure once, behind all ways that ended in it.
        ways: dict[str, list[str]] = {}
        for attempt in attempts:
            ways.setdefault(attempt.failure, []).append(attempt.way)
        tried = "\n".join(f"  {', '.join(names)}: {text}" for text, names in ways.items())
        arguments = ", ".join(f"`{sig.path}` {sig}" for sig in inputs)
        advice = "".join(
            dict.fromkeys(failure_messages.advice_on(attempt.error, inputs) for attempt in attempts)
        )
        advice = advice or (
            "If the function looks at values, give a contract with outputs, example=(...) with "
            "sensible arguments, or call it once eagerly with these shapes before jit."
        )
        return PlanningError(
            f"{self._label}: expected to find the outputs for {arguments or 'no arguments'} before "
            f"running; every way failed:\n{tried}\n{advice}".rstrip()
        )


def _reason(attempts: Sequence[Attempt]) -> str:
    # Why symbols would not do is of no use to who wonders what a fake is.
    return [attempt.words for attempt in attempts if attempt.how != "symbols"][-1]


def _is_any_array(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) or is_array(leaf)


def _as_tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    # Not through jnp.asarray: under a trace that would make a tracer of a numpy array.
    return j2t(value if isinstance(value, jax.Array) else np.asarray(value))
