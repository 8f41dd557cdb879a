"""One run of a function that autograd records, and its derivative from that record."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge, increment_version

from ...._compat.torch.autograd_graph import checkpoints_reentrantly, needs_backward
from ...._compat.torch.storages import memory_key, storage_use_count
from ...._compat.torch.tensors import use_count, write_count
from ....recorded_inputs import recorded_inputs
from ...closure.garbage import is_still
from ...functions.accumulated_gradients import accumulated_gradients
from ...functions.source import Core
from ...functions.transforms import as_cotangents, conjugated
from ...functions.unrecorded_backward import nothing_recorded
from ...modules.kept_skeletons import Input, KeptSkeletons, keeping_skeletons
from ...observe.hidden_gradients import Judgement
from .saved_tensors import SavedTensors

_NOWHERE: Mapping[int, torch.Tensor] = {}


class ReentrantError(Exception):
    """What was recorded allows no ``torch.autograd.grad``."""


class Tape:
    """What autograd recorded of one run: nothing of it lies in XLA's memory.

    Attributes:
        device: ``cpu``, or the GPU that the run was on.
        size_bytes: Memory that it keeps; None if nobody could count it.
        saved: How many tensors autograd saved, and the memory of these alone; None if nobody could
            count them.
        judgement: What was seen of the run that bears on derivatives.
    """

    judgement = Judgement()

    def __init__(
        self,
        leaves: dict[int, torch.Tensor],
        edges: Sequence[GradientEdge | None],
        saved: SavedTensors | None,
        device: str,
        size_bytes: int | None,
        kept: KeptSkeletons,
        inputs: Literal["own", "borrowed", "none"],
    ) -> None:
        """Of one run.

        Args:
            leaves: Inputs to differentiate by, by their number.
            edges: For each result, where its gradient comes in; None where nothing was recorded.
            saved: The hooks; None if there were none.
            device: See the class.
            size_bytes: See the class.
            kept: Skeletons that code of the backward may run.
            inputs: The memory of the leaves: the tape's own, XLA's until the call ends, or none.
        """
        self._leaves = leaves
        self._kept = kept
        self._inputs = inputs
        # Not the outputs: one that nobody saved is freed.
        self._edges = edges
        self._hooks = saved
        self.device = device
        self.size_bytes = size_bytes
        self.saved = None if saved is None else (saved.count, saved.size_bytes)

    def close(self) -> None:
        """It is used up."""
        self._kept.release()
        if self._inputs == "borrowed":
            # Or a node that goes on living would keep them.
            _emptied(self._leaves)

    def pull(
        self,
        operands: Sequence[torch.Tensor],
        ins: Sequence[int],
        outs: Sequence[int],
        cotangents: Sequence[torch.Tensor],
        *,
        label: str,
        keep: bool = False,
        batched: bool = False,
        into: Mapping[int, torch.Tensor] = _NOWHERE,
        accumulate: Callable[[], Sequence[torch.Tensor]] | None = None,
    ) -> list[torch.Tensor | None]:
        """Cotangents of inputs, in JAX's convention; None where nothing depends on one.

        Args:
            operands: The inputs of the run, where they are now.
            ins: Inputs whose cotangents are asked for.
            outs: Outputs that have a cotangent.
            cotangents: One for each of ``outs``.
            label: The callable's name, for messages.
            keep: It will be asked again.
            batched: The cotangents have a batch axis in front; so will the results.
            into: For some of ``ins`` that are real, where to write its cotangent as soon as it is
                found. Not where gradients accumulate, which are found in parts.
            accumulate: By `accumulated_gradients`: the leaves that the function closes over.

        Raises:
            DifferentiationError: The run left torch, and recorded nothing of any output.
            ReentrantError: It has to be by `accumulated_gradients`; nothing is left of the record.
        """
        edges, weights = [], []
        for index, cotangent in zip(outs, conjugated(cotangents), strict=True):
            edge = self._edges[index]
            # None: it depends on no input, maybe in this run alone.
            if edge is not None:
                edges.append(edge)
                weights.append(cotangent)
        asked = [self._leaves[index] for index in ins]
        if self.judgement.left and not any(self._edges):
            raise nothing_recorded(label)
        if not edges:
            return [None] * len(asked)
        if self._hooks is not None:
            self._hooks.operands = operands
        # The engine calls these last, with what would be returned, and returns what they give.
        moves = [
            self._leaves[index].register_hook(_moving_to(buffer))
            for index, buffer in (into if accumulate is None else _NOWHERE).items()
        ]
        found: Sequence[torch.Tensor | None]
        try:
            with self._inputs_in_skeletons(operands):
                if accumulate is not None:
                    found = accumulated_gradients(
                        edges, asked, weights, keep=keep, others=accumulate()
                    )
                else:
                    found = torch.autograd.grad(
                        edges,
                        asked,
                        weights,
                        retain_graph=keep,
                        allow_unused=True,
                        is_grads_batched=batched,
                    )
        except RuntimeError as error:
            if accumulate is None and needs_backward(error):
                raise ReentrantError from None
            raise
        finally:
            for move in moves:
                move.remove()
            if self._hooks is not None:
                self._hooks.operands = ()
        return [None if one is None else as_cotangents([one])[0] for one in found]

    @property
    def is_reentrant(self) -> bool:
        """Whether it has to be gone through by `accumulated_gradients`."""
        return checkpoints_reentrantly([edge for edge in self._edges if edge is not None])

    @contextlib.contextmanager
    def _inputs_in_skeletons(self, operands: Sequence[torch.Tensor]) -> Iterator[None]:
        """For code of the backward that runs parts of a module again, on what they ran on."""
        if not self._kept:
            yield
            return

        def find(one: Input) -> torch.Tensor:
            leaf = self._leaves.get(one.place)
            return operands[one.place].to(one.dtype) if leaf is None else leaf

        filled = self._leaves if self._inputs == "none" else {}
        for index, leaf in filled.items():
            leaf.data = operands[index].to(leaf.dtype)
        try:
            with self._kept.filled(find):
                yield
        finally:
            for leaf in filled.values():
                leaf.data = torch.empty(0, dtype=leaf.dtype, device=leaf.device)


def _moving_to(buffer: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def move(cotangent: torch.Tensor) -> torch.Tensor:
        # Where it was it is freed, and the next may take its place.
        dense = cotangent.layout is torch.strided
        return buffer.copy_(cotangent) if dense else cotangent

    return move


Memory = Literal["borrowed", "hooked", "copied", "unhooked"]


def record(
    function: Core,
    tensors: Sequence[torch.Tensor],
    wrt: Sequence[int],
    dtypes: Sequence[torch.dtype],
    *,
    memory: Memory,
    saved_bytes: int | None = None,
) -> tuple[list[Any], Tape | None]:
    """Run a function and keep what autograd records.

    Args:
        function: What to run.
        tensors: Its inputs, in XLA's memory.
        wrt: Those to differentiate by.
        dtypes: What the function is to see.
        memory: What the tape holds of the inputs. ``hooked``: references, see `SavedTensors`.
            ``copied``: copies, for functions that keep an input where no hook sees it.
            ``unhooked``: the same without hooks, which ``torch.func`` does not allow inside.
            ``borrowed``: the inputs themselves; the tape must be gone when the call ends.
        saved_bytes: What a run with hooks has kept, for one without; None if there was none.

    Returns:
        The results, which nothing is recorded of, and the tape: none if something besides it
        holds an input (an attribute of a custom function's context), and would outlive the call.
    """
    device = str(tensors[0].device) if tensors else "cpu"
    by_copy = memory in ("copied", "unhooked")
    saved = None
    if memory in ("hooked", "copied"):
        # Copies are the tape's own memory, and are kept as such.
        saved = SavedTensors(() if by_copy else tensors)
    storages = [tensor.untyped_storage() for tensor in tensors]
    before = [] if by_copy else [storage_use_count(storage._cdata) for storage in storages]
    inputs = [
        # Other tensors than the handler's own: who keeps one of them holds the storage once more.
        tensor.clone() if by_copy and tensor.dtype is dtype else tensor.detach().to(dtype)
        for tensor, dtype in zip(tensors, dtypes, strict=True)
    ]
    for index in wrt:
        # Leaves, as torch's users have them; with the count of writes of what they are made of.
        inputs[index].requires_grad_()
    leaves = {index: inputs[index] for index in wrt}
    kept = KeptSkeletons()
    with (
        torch.enable_grad(),
        recorded_inputs(list(leaves.values())),
        keeping_skeletons() as keeper,
    ):
        with contextlib.nullcontext() if saved is None else saved.hooks():
            outputs = list(function(*inputs))
        kept.take_over(keeper)
    if by_copy:
        _tell_of_writes(tensors, inputs)
    edges = [_edge(output) for output in outputs]
    keys = {storage._cdata for storage in storages}
    if kept and not by_copy:
        kept.refer_to(inputs, keys)
    results = [_alone(output, keys) for output in outputs]
    del inputs, outputs
    if saved is not None:
        saved.close()
        saved_bytes = saved.size_bytes
    if by_copy and saved_bytes is not None:
        saved_bytes += sum(storage.nbytes() for storage in storages)
    if saved is None or by_copy:
        has: Literal["own", "borrowed"] = "own" if by_copy else "borrowed"
        return results, Tape(leaves, edges, saved, device, saved_bytes, kept, has)
    if not _emptied(leaves) or _have_more_holders(storages, before):
        kept.release()
        return results, None
    return results, Tape(leaves, edges, saved, device, saved_bytes, kept, "none")


def _tell_of_writes(tensors: Sequence[torch.Tensor], copies: Sequence[torch.Tensor]) -> None:
    """A write to a copy counts as one to the input, which calls without a derivative refuse."""
    for tensor, copy in zip(tensors, copies, strict=True):
        if write_count(copy) and copy.dtype is tensor.dtype:
            increment_version(tensor)


def _edge(output: Any) -> GradientEdge | None:
    recorded = isinstance(output, torch.Tensor) and output.requires_grad
    return get_gradient_edge(output) if recorded else None


def _alone(output: Any, keys: set[int]) -> Any:
    """A result without what was recorded, and outside of these memories."""
    if not isinstance(output, torch.Tensor):
        return output
    result = output.detach()
    # As a view of an input it would count as one of its holders.
    return result.clone() if memory_key(result) in keys else result


def _emptied(leaves: dict[int, torch.Tensor]) -> bool:
    """Take XLA's memory from leaves, which their nodes hold; False if somebody else holds one.

    That may be a closure that runs again in the backward, or an attribute that the user reads:
    they get memory of their own.
    """
    held = _are_held(leaves)
    for leaf in leaves.values():
        empty = torch.empty(0, dtype=leaf.dtype, device=leaf.device)
        leaf.data = leaf.detach().clone() if held else empty
    return not held


def _are_held(leaves: dict[int, torch.Tensor]) -> bool:
    # One that nobody has seen tells how often a leaf is referred to here, and by its node.
    unseen = {-1: torch.empty(0, requires_grad=True)}
    edge = get_gradient_edge(unseen[-1])
    (allowed,) = _references(unseen)
    found = is_still(lambda: any(count > allowed for count in _references(leaves)))
    del edge
    return found


def _references(leaves: dict[int, torch.Tensor]) -> list[int]:
    return [sys.getrefcount(leaf) + use_count(leaf) for leaf in leaves.values()]


def _have_more_holders(storages: Sequence[torch.UntypedStorage], before: Sequence[int]) -> bool:
    return is_still(
        lambda: any(
            storage_use_count(storage._cdata) > count
            for storage, count in zip(storages, before, strict=True)
        )
    )
