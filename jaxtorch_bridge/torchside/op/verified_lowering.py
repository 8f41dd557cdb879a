"""The first run of a function that XLA runs, compared with what torch gives (``verify: true``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...errors import BackendError
from ...planner.array_signature import ArraySig
from ..functions.compare_results import difference
from ..functions.tensor_function import Core
from .islands import CHECKED
from .make_op import op_of_program
from .program import Program
from .torch_op import Companion, Function, LinearOp, TorchOp


def verifier(op: TorchOp) -> TorchOp:
    """The op that compares the results of ``op.aten`` with those of torch's own code, once.

    It takes what torch sees of the inputs, and the results, and gives what a check gives.

    Raises:
        BackendError: The function draws random numbers, which are others in JAX.
    """

    def build() -> Companion:
        assert isinstance(op.role, Function), "XLA runs functions and their derivatives alone"
        fn = op.role.fn
        if fn.may_draw:
            raise BackendError(
                f"{op.label}: `verify: true` compares what XLA gives with what torch gives, but "
                "the function draws random numbers, which are others. Say `verify: false`."
            )
        program = Program(
            # A key, which nothing is drawn from, stands behind the inputs.
            _Compared(op.label, fn.core, fn.outputs, len(fn.inputs), fn.device),
            (*_as_seen(fn.inputs), *_as_seen(fn.outputs)),
            (CHECKED,),
            fn,
            fn.context.with_grad(),
            eager=True,
        )
        label, key = f"{op.label} (verified)", f"{op.key}/verified"
        made = op_of_program(program, label, key, LinearOp(), op.family, op.steps, by_torch=True)
        return Companion(made)

    found: Companion = op.derived.find(("verifier",), build)
    return found.op


def _as_seen(sigs: Sequence[ArraySig]) -> tuple[ArraySig, ...]:
    """In torch's dtypes, as the JAX operations have them."""
    return tuple(replace(sig, dtype=sig.torch_dtype) for sig in sigs)


class _Compared:
    def __init__(
        self, label: str, function: Core, outputs: Sequence[ArraySig], count: int, device: str
    ) -> None:
        self._label = label
        self._function = function
        self._paths = [sig.path for sig in outputs]
        self._count = count
        self._device = device
        self._done = False

    def __call__(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        if not self._done:
            # Copies: what the function keeps or writes to is not XLA's memory.
            given = [tensor.clone() for tensor in tensors[: self._count]]
            expected = self._function(*given)
            found = tensors[self._count :]
            for path, one, wanted in zip(self._paths, found, expected, strict=True):
                words = difference(one, wanted.detach())
                if words is not None:
                    raise BackendError(
                        f"{self._label}, {path}: `backend: xla` gives something else than torch"
                        f"{words}. Say `backend: eager`, and report it."
                    )
            # Not after a difference: the next call is compared, and refused, again.
            self._done = True
        return [torch.ones((), dtype=torch.bool, device=self._device)]
