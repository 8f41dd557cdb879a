"""Storages whose memory is taken back get memory of their own, under every tensor over them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from jaxtorch_bridge._compat.torch import storages
from jaxtorch_bridge._compat.torch.storages import give_own_memory


@pytest.fixture(params=["torch's own way", "the way for torch before 2.13"], autouse=True)
def way(request, monkeypatch):
    if request.param != "torch's own way":
        # Newer ones may keep their storages in another way; theirs is the first one.
        if hasattr(torch.UntypedStorage, "_swap_data_ptr_") and not storages.can_exchange():
            pytest.skip("this torch keeps storages in another way, and has its own")
        monkeypatch.setattr(torch.UntypedStorage, "_swap_data_ptr_", None, raising=False)
    return request.param


def borrowed():
    """A tensor over numpy's memory, a view of that memory, and a weak reference to its owner."""
    owner = np.arange(6.0)
    return torch.from_dlpack(owner), owner.view(), weakref.ref(owner)


def test_every_tensor_over_it_moves():
    tensor, memory, owner = borrowed()
    part, turned, detached = tensor[2:], tensor.reshape(2, 3).T, tensor.detach()
    start = tensor.data_ptr()
    assert give_own_memory(tensor.untyped_storage())
    memory[:] = -1
    for each, offset in ((tensor, 0), (part, 2), (turned, 0), (detached, 0)):
        assert each.data_ptr() == tensor.untyped_storage().data_ptr() + 8 * offset != start
    tensor[3] = 30
    assert tensor.tolist() == [0, 1, 2, 30, 4, 5]
    assert part.tolist() == [2, 30, 4, 5]
    assert turned.tolist() == [[0, 30], [1, 4], [2, 5]]
    assert memory.tolist() == [-1] * 6
    del memory
    gc.collect()
    assert owner() is None


def test_what_autograd_keeps_moves():
    tensor, memory, owner = borrowed()
    weight = torch.ones(6, dtype=torch.float64, requires_grad=True)
    result = (tensor * weight).sum()
    give_own_memory(tensor.untyped_storage())
    memory[:] = -1
    del memory, tensor
    gc.collect()
    assert owner() is None
    result.backward()
    assert weight.grad.tolist() == [0, 1, 2, 3, 4, 5]


def test_empty_memory():
    owner = np.empty((0, 3))
    tensor = torch.from_dlpack(owner)
    assert give_own_memory(tensor.untyped_storage())
    assert (tensor + 1).shape == (0, 3)


def test_twice():
    tensor, memory, _ = borrowed()
    assert give_own_memory(tensor.untyped_storage())
    assert give_own_memory(tensor.untyped_storage())
    memory[:] = -1
    assert tensor.tolist() == [0, 1, 2, 3, 4, 5]


def test_where_it_cannot_be_done_nothing_is_touched(way, monkeypatch):
    if way == "torch's own way":
        return
    monkeypatch.setattr(storages, "can_exchange", lambda: False)
    tensor, _, _ = borrowed()
    start = tensor.data_ptr()
    assert not give_own_memory(tensor.untyped_storage())
    assert tensor.data_ptr() == start
