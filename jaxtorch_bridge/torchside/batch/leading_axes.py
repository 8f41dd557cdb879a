"""Functions that are said to work along leading axes: ``expand_dims`` and ``broadcast_all``.

Torch is called once with whole batches, as the function stands. Nobody but its author knows that
this is right (a ``softmax(dim=0)`` mixes the elements), so it can be compared with single calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...choices import VmapMethod
from ...errors import BatchingError
from ...planner.array_signature import ArraySig
from ..functions.compare_results import difference
from ..functions.graph_capture import NotCapturedError, abstractly
from ..functions.tensor_function import Core, TensorFunction
from ..observe.abstract_evaluation import fake_inputs

CLAIMS: tuple[VmapMethod, ...] = ("expand_dims", "broadcast_all")


def claimed(
    function: Core,
    inputs: Sequence[ArraySig],
    dims: Sequence[int | None],
    size: int,
    method: VmapMethod,
) -> Core:
    """The function on whole batches: each input's batch axis first, as JAX would pass it.

    Args:
        function: Of one element, said to work along leading axes as well.
        inputs: Of one element.
        dims: Batch axes, or None. Such an input gets an axis of size 1 (``expand_dims``), or is
            repeated (``broadcast_all``).
        size: Of the batch.
        method: Which of the two.
    """

    def run(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        moved = []
        for tensor, sig, dim in zip(tensors, inputs, dims, strict=True):
            # Counted from the end: a batch around this one adds axes in front.
            front = -len(sig.shape) - 1
            if dim is not None:
                tensor = tensor.movedim(dim + front, front)
            else:
                tensor = tensor.unsqueeze(front)
                if method == "broadcast_all":
                    shape = list(tensor.shape)
                    shape[front] = size
                    tensor = tensor.expand(shape)
            # XLA's arrays are row-major, and functions may rely on it (`view`).
            moved.append(tensor.contiguous())
        return function(*moved)

    return run


def passed(
    inputs: Sequence[ArraySig], dims: Sequence[int | None], size: int, method: VmapMethod
) -> tuple[ArraySig, ...]:
    """What the function gets of a batch: the arguments are those of `claimed`."""
    alone = size if method == "broadcast_all" else 1
    return tuple(
        replace(sig, shape=(alone if dim is None else size, *sig.shape))
        for sig, dim in zip(inputs, dims, strict=True)
    )


def refuse_wrong_shapes(fn: TensorFunction, given: Sequence[ArraySig], method: VmapMethod) -> None:
    """Object to a claim whose results have not the shapes of a batch, where that can be seen.

    Args:
        fn: Of the function on whole batches.
        given: What the function itself gets, for messages.
        method: What is claimed.

    Raises:
        BatchingError: Says which result it is.
    """
    if not fn.inference.traced:
        return  # the handler compares shapes when it runs
    try:
        with abstractly(fn, fn.plain_attention) as mode:
            results = fn.core(*fake_inputs(mode, fn.inputs, fn.device))
            found = [tuple(result.shape) for result in results]
    except NotCapturedError as error:
        raise BatchingError(
            f"{fn.label}: `vmap_method: {method}` says that the function works along leading "
            f"axes, but on {_listed(given)} it fails: {error}. Say `torch_vmap`."
        ) from error
    for sig, shape in zip(fn.outputs, found, strict=True):
        if shape != sig.shape:
            raise BatchingError(
                f"{fn.label}, {sig.path}: `vmap_method: {method}` says that the function works "
                f"along leading axes; expected {list(sig.shape)} for a batch, but torch returns "
                f"{list(shape)}. Say `torch_vmap`, or have the function keep leading axes."
            )


def refuse_shared_draws(fn: TensorFunction, method: VmapMethod) -> None:
    """Object to a claim of a function that draws from a key which all elements share.

    Raises:
        BatchingError: As said.
    """
    if fn.keyed and fn.may_draw:
        raise BatchingError(
            f"{fn.label}: `vmap_method: {method}` calls the function on whole batches, where "
            "it would draw other numbers for each element; one key means one draw, shared by "
            "all elements. Say `torch_vmap`, or batch the key as well."
        )


class Verified:
    """Compares the first batched run with single calls.

    Attributes:
        label: The callable's name, for messages.
    """

    def __init__(
        self, label: str, batched: Core, one_by_one: Core, outputs: Sequence[ArraySig], method: str
    ) -> None:
        self.label = label
        self._batched = batched
        self._one_by_one = one_by_one
        self._paths = [sig.path for sig in outputs]
        self._method = method
        self._done = False

    def __call__(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        """The batched results.

        Raises:
            BatchingError: They are not those of single calls.
        """
        results = self._batched(*tensors)
        # Of an empty batch there are no single calls.
        if not self._done and any(result.numel() for result in results):
            # The single calls are only looked at; nobody differentiates them.
            with torch.no_grad():
                expected = self._one_by_one(*tensors)
            for path, result, wanted in zip(self._paths, results, expected, strict=True):
                self._compare(path, result.detach(), wanted)
            # Not after a difference: the next call is compared, and refused, again.
            self._done = True
        return results

    def _compare(self, path: str, result: torch.Tensor, wanted: torch.Tensor) -> None:
        words = difference(result, wanted)
        if words is None:
            return
        raise BatchingError(
            f"{self.label}, {path}: `vmap_method: {self._method}` says that the function works "
            f"along leading axes, but a call on the whole batch differs from single calls"
            f"{words}. Say `torch_vmap`."
        )


def _listed(sigs: Sequence[ArraySig]) -> str:
    return ", ".join(f"`{sig.path}` {sig}" for sig in sigs)
