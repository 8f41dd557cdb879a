"""One call of a function evaluated as a fake, against its contract."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax

from ..._compat.torch.fake_tensors import cannot_be_fake, looks_at_values
from ...calling.arguments.copied_arguments import copied_slots
from ...calling.arguments.read_mutates import mutated_arguments
from ...calling.arguments.sort_leaves import describe_arrays, sort_leaves, static_values
from ...calling.flat_function import FlatFunction
from ...calling.outputs.bounded_results import bounded_results
from ...calling.pytrees import trees
from ...dtypes import canonical_name
from ...errors import (
    BridgeError,
    DynamicSizeError,
    SpecError,
    SpecMismatchError,
    SpecProblem,
)
from ...planner.build_plan import CallFacts, plan_call, plan_inputs
from ...torchside.closure.closure_state import ClosureState
from ...torchside.handler.torch_context import current_context
from ...torchside.observe.abstract_evaluation import infer_abstractly
from ...torchside.observe.symbolic_evaluation import infer_with_symbols
from . import problems
from .calls import arguments_of
from .cases import Case
from .named_function import Subject

# agrees: as the contract says. differs: not so. raises: the function fails at these sizes.
# unseen: it cannot be evaluated abstractly.
Verdict = Literal["agrees", "differs", "raises", "unseen"]


@dataclass(frozen=True)
class Outcome:
    """What came of one call.

    Attributes:
        verdict: In a word.
        problem: What differs.
        reason: Why it raises or cannot be seen.
    """

    verdict: Verdict
    problem: SpecProblem | None = None
    reason: str = ""


AGREES = Outcome("agrees")


class Evaluator:
    """Evaluates calls of one function.

    Attributes:
        returned: What the last call gave, with numbers for arrays.
    """

    returned: object = None

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._closure = ClosureState(subject.function)
        self._device = _device_of(self._closure)

    def evaluate(self, case: Case, *, x64: bool = True) -> Outcome:
        """What comes of a call.

        Args:
            case: Which call.
            x64: Whether JAX holds 64-bit dtypes. Then none of them stands for its 32-bit kind,
                so dtypes are compared as they are written.
        """
        spec = self._subject.spec
        words = case.words(spec)
        try:
            return self._compare(case, x64)
        except SpecMismatchError as error:
            return Outcome("differs", problems.of_mismatch(spec, error, words))
        except SpecError as error:
            return Outcome("differs", next(problems.of_contract(spec, error)))
        except BridgeError as error:
            expected = "a function that can be called from JAX"
            found = f"{problems.first_line(error)}, with {words}"
            return Outcome("differs", problems.problem_at(spec, "function", expected, found))

    def _compare(self, case: Case, x64: bool) -> Outcome:
        subject = self._subject
        spec, function = subject.spec, subject.function
        args, kwargs = arguments_of(subject, case, lambda _, *array: _aval(*array, x64=x64))
        leaves = sort_leaves(spec.label, args, kwargs)
        mutated = mutated_arguments(spec.label, spec.mutates, function, leaves)
        copied = copied_slots(spec.label, spec.copies, function, leaves)
        bounded = bounded_results(spec, function, leaves)
        leaves = replace(leaves, mutated=mutated, copied=copied, bounded=bounded)
        shapes = [(tuple(array.shape), str(array.dtype)) for array in leaves.arrays]
        arrays, static = describe_arrays(function, leaves, shapes)
        values = static_values(function, leaves)
        facts = CallFacts(spec.name, "", arrays, static, (), x64, values)
        inputs, sizes = plan_inputs(spec, facts)
        flat = FlatFunction(function, leaves)
        evaluated = (flat, inputs, self._device, spec.label, self._closure)
        with current_context().scope():
            inference, observed, attempts = infer_abstractly(*evaluated)
            if inference is None:
                with contextlib.suppress(DynamicSizeError):
                    inference = infer_with_symbols(*evaluated, attempts)
        if inference is None:
            errors = [attempt.error for attempt in attempts]
            # A function that fails is wrong at these sizes; one that cannot be a fake only has to
            # run.
            unseen = any(looks_at_values(one) or cannot_be_fake(one) for one in errors)
            return Outcome("unseen" if unseen else "raises", reason=problems.first_line(errors[0]))
        # Numbers for arrays: only in what they come is looked at later.
        self.returned = trees.unflatten(inference.structure, range(len(inference.outputs)))
        paths = trees.paths_of(inference.structure)
        plan_call(spec, facts, inputs, sizes, inference, paths)
        if observed.impure_draws and spec.random == "none":
            return Outcome("differs", problems.undeclared_draws(spec, case.words(spec)))
        return AGREES


def _aval(shape: tuple[int, ...], dtype: str, *, x64: bool) -> Any:
    return jax.ShapeDtypeStruct(shape, jax.numpy.dtype(canonical_name(dtype, x64=x64)))


def _device_of(closure: ClosureState) -> str:
    """Where the function's module is; no array of a made-up call is anywhere."""
    for module in closure.modules:
        for parameter in module.parameters():
            return parameter.device.type
    return "cpu"
