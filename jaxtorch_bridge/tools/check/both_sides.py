"""One call of a function with made-up values, on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import torch

from ...calling.arguments.read_mutates import mutated_arguments
from ...calling.arguments.sort_leaves import sort_leaves
from ...calling.jax_callable import JaxCallable
from ...calling.outputs.bounded_results import bounded_results
from ...calling.outputs.find_outputs import x64_enabled
from ...calling.pytrees import trees
from ...dtypes import DTYPES, canonical_name
from ...errors import BridgeWarning
from .calls import arguments_of, with_key
from .cases import Case, Path, has_wide_floats
from .named_function import Subject
from .values import Values


@dataclass(frozen=True)
class Run:
    """One call with values.

    Attributes:
        subject: The function and its contract.
        case: Sizes and choices.
        arrays: JAX arrays by their path in the contract.
        tensors: The same for torch, in the dtypes that it sees under JAX.
    """

    subject: Subject
    case: Case
    arrays: dict[Path, Any]
    tensors: dict[Path, torch.Tensor]

    def jax_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """For the JAX function."""
        arguments = arguments_of(self.subject, self.case, lambda path, *_: self.arrays[path])
        return with_key(self.subject, arguments)

    def torch_result(self, tensors: dict[Path, torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Flat results of the plain torch function."""
        given = self.tensors if tensors is None else tensors
        if self.subject.spec.mutates or self.subject.spec.copies:
            # The function writes to them, and later runs start from the same values.
            given = {path: tensor.clone() for path, tensor in given.items()}
        args, kwargs = arguments_of(self.subject, self.case, lambda path, *_: given[path])
        result = self.subject.function(*args, **kwargs)
        return list(trees.flatten(self._with_new_values(result, args, kwargs))[0])

    @property
    def differentiable(self) -> list[Path]:
        """The inputs that have a gradient by the contract."""
        return [
            path
            for path, leaf in self.subject.spec.input_leaves()
            if path in self.arrays and leaf.differentiable
        ]

    def jax_results(
        self,
        callable_: JaxCallable[..., Any],
        moved: Mapping[Path, Any],
        outs: Sequence[int],
    ) -> list[Any]:
        """Some results of the JAX function, with other arrays for some inputs."""
        args, kwargs = replace(self, arrays={**self.arrays, **moved}).jax_arguments()
        results = trees.flatten(callable_(*args, **kwargs))[0]
        return [results[index] for index in outs]

    def torch_gradients(
        self,
        tensors: dict[Path, torch.Tensor],
        paths: Sequence[Path],
        outs: Sequence[int],
        weights: Sequence[torch.Tensor],
    ) -> list[torch.Tensor | None]:
        """Torch's gradients by some of ``tensors``, of some results; None where none depends on it.

        Raises:
            RuntimeError: Autograd's own.
        """
        inputs = [tensors[path].requires_grad_() for path in paths]
        results = self.torch_result(tensors)
        pairs = [(results[i], one) for i, one in zip(outs, weights, strict=True)]
        # Autograd refuses results that no input moves.
        pairs = [(result, one) for result, one in pairs if result.requires_grad]
        if not pairs:
            return [None] * len(paths)
        heads, cotangents = zip(*pairs, strict=True)
        return list(torch.autograd.grad(heads, inputs, cotangents, allow_unused=True))

    def _with_new_values(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What JAX gets: with the arguments that the function has written to, and padded."""
        subject = self.subject
        # With arrays of JAX's: of tensors `sort_leaves` tells no positions.
        again = arguments_of(subject, self.case, lambda path, *_: self.arrays[path])
        leaves = sort_leaves(subject.spec.label, *again)
        mutated = mutated_arguments(
            subject.spec.label, subject.spec.mutates, subject.function, leaves
        )
        bounded = bounded_results(subject.spec, subject.function, leaves)
        flat, _ = trees.flatten((args, kwargs))
        given = [flat[position] for position in leaves.positions]
        if mutated is not None:
            result = mutated.result(result, given)
        behind = 0 if mutated is None else mutated.behind
        return result if bounded is None else bounded.result(result, given, behind)


def run_of(subject: Subject, case: Case) -> Run:
    """A call with made-up values."""
    values = Values(subject.spec.label, case)
    x64 = x64_enabled()
    arrays, tensors = {}, {}
    for path, leaf in subject.spec.input_leaves():
        if path in case.without:
            continue
        dtype = case.dtype_of(subject.spec, path, leaf)
        raw = values.make(path, case.shape_of(leaf.shape), dtype)
        narrowed = canonical_name(dtype, x64=x64)
        arrays[path] = jnp.asarray(raw, dtype=narrowed)
        # As the planner has it: integers are widened again, floats stay narrow.
        seen = dtype if DTYPES[dtype].kind == "int" else narrowed
        tensors[path] = torch.from_numpy(raw).to(getattr(torch, seen))
    return Run(subject, case, arrays, tensors)


def as_jax(tensor: torch.Tensor) -> Any:
    """A result of torch as JAX has it; 64 bits become 32 while x64 is off."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    name = str(plain.dtype).removeprefix("torch.")
    # numpy has no such dtypes of its own, so torch gives no arrays of them.
    if name.startswith("float8") or name == "bfloat16":
        return jnp.asarray(plain.to(torch.float32).numpy(), dtype=name)
    return jnp.asarray(plain.numpy(), dtype=canonical_name(name, x64=x64_enabled()))


class Surroundings:
    """64-bit dtypes where the contract has floats of them, and no warnings of this library."""

    def __init__(self, subject: Subject) -> None:
        self._x64 = jax.enable_x64(has_wide_floats(subject.spec) or x64_enabled())
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._x64.__enter__()
        self._warnings.__enter__()
        warnings.simplefilter("ignore", BridgeWarning)

    def __exit__(self, *error: Any) -> None:
        self._warnings.__exit__(*error)
        self._x64.__exit__(*error)
