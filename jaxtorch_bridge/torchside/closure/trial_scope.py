"""A run of a function that is no call: it leaves what is around the function as it was.

Where nothing else tells what a function returns it is run, on an example or on made-up values. Such
a run may take a step of an optimizer, count, or fill a cache, none of which anybody has asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ..._compat.torch.fake_tensors import is_fake
from ..._compat.torch.tensors import version_of
from ..inspection.careful_access import is_a, stored_items
from .closure_state import ClosureState

Undo = Callable[[], None]


@contextlib.contextmanager
def trial(closure: ClosureState) -> Iterator[None]:
    """Around such a run: values of tensors, gradients, optimizers, attributes, random numbers."""
    surroundings = closure.snapshot()
    around = closure.tensors_around()
    undo = [_of_optimizer(one) for one in closure.optimizers()]
    grads = [one.grad for one in around if one.is_leaf and one.grad is not None]
    undo += [_of_values(one) for one in (*around, *grads) if _has_values(one)]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        surroundings.restore()
        for put_back in undo:
            put_back()


def _has_values(tensor: torch.Tensor) -> bool:
    plain = tensor.layout is torch.strided and tensor.device.type != "meta"
    return plain and not (is_lazy(tensor) or is_fake(tensor) or tensor.is_inference())


def _of_values(tensor: torch.Tensor) -> Undo:
    # Other memory may be put in its place (`tensor.data = ...`): this one is kept.
    memory, version = tensor.detach(), version_of(tensor)
    values = memory.clone()

    def put_back() -> None:
        if tensor.data_ptr() != memory.data_ptr() or tensor.shape != memory.shape:
            tensor.data = memory
        # Writes through `.data` and numpy do not count. And no write that is not needed: it would
        # count as one for who has saved the tensor for a backward.
        if version_of(tensor) != version or not torch.equal(memory, values):
            with torch.no_grad():
                tensor.copy_(values)

    return put_back


def _of_optimizer(optimizer: torch.optim.Optimizer) -> Undo:
    tables: list[dict[Any, Any]] = [optimizer.state, *optimizer.param_groups]
    tables += [one for one in optimizer.state.values() if is_a(one, dict)]
    before = [(table, stored_items(table)) for table in tables]
    tensors = [value for _, items in before for _, value in items if is_a(value, torch.Tensor)]
    undo = [_of_values(one) for one in tensors if _has_values(one)]

    def put_back() -> None:
        for table, items in before:
            table.clear()
            table.update(items)
        for one in undo:
            one()

    return put_back
