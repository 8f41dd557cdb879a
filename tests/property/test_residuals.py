"""Saved tensors of any layout come back with their values and their strides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comparing import assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.derive.saved.residual_layout import ResidualLayout


@st.composite
def laid_out(draw):
    """A tensor that has been permuted, sliced and expanded at will."""
    shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    dtype = draw(
        st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
    )
    count = 1
    for size in shape:
        count *= size
    tensor = torch.arange(count).reshape(shape).to(dtype)
    for _ in range(draw(st.integers(0, 3))):
        step = draw(st.sampled_from(["permute", "slice", "expand", "select", "conj"]))
        if step == "permute" and tensor.ndim:
            tensor = tensor.permute(draw(st.permutations(range(tensor.ndim))))
        elif step == "slice" and tensor.ndim:
            axis = draw(st.integers(0, tensor.ndim - 1))
            every = (slice(None),) * axis
            tensor = tensor[(*every, slice(draw(st.integers(0, 1)), None, draw(st.integers(1, 3))))]
        elif step == "expand":
            tensor = tensor.unsqueeze(0).expand(draw(st.integers(1, 3)), *tensor.shape)
        elif step == "select" and tensor.ndim and tensor.shape[0]:
            tensor = tensor[-1]
        elif step == "conj" and dtype is torch.float32:
            tensor = torch.complex(tensor, tensor + 1).conj().imag
    return tensor


@settings(max_examples=300)
@given(tensor=laid_out(), x64=st.booleans())
def test_round_trip(tensor, x64):
    layout = ResidualLayout.of("saved", tensor, x64=x64)
    flat = layout.encode(tensor)
    assert tuple(flat.shape) == layout.sig.shape
    assert str(flat.dtype) == f"torch.{layout.sig.dtype}"
    carried = torch.empty_like(flat, memory_format=torch.contiguous_format).copy_(flat)
    back = layout.decode(carried)
    assert tuple(back.stride()) == tuple(tensor.stride()) or tensor.numel() <= 1
    assert back.dtype == tensor.dtype
    assert_equal(back, tensor.resolve_neg())


@settings(max_examples=100)
@given(tensor=laid_out())
def test_a_tensor_laid_out_otherwise_than_planned_is_brought_into_line(tensor):
    planned = ResidualLayout.of("saved", tensor, x64=True)
    other = tensor.contiguous()
    back = planned.decode(planned.encode(other).clone())
    assert_equal(back, other)


def test_large_gaps_are_not_carried():
    column = torch.zeros(100, 100)[:, 0]
    layout = ResidualLayout.of("saved", column, x64=True)
    assert layout.sig.shape == (100,)
    assert layout.decode(layout.encode(column)).stride() == (100,)


@pytest.mark.parametrize("x64", [False, True])
def test_a_column_is_packed_before_it_is_carried(x64):
    column = torch.arange(9.0, dtype=torch.float64).reshape(3, 3)[:, :1]
    layout = ResidualLayout.of("saved", column, x64=x64)
    flat = layout.encode(column)
    assert flat.stride() == (1,)
    assert_equal(layout.decode(flat.clone()), column)


@pytest.mark.parametrize("count", [4, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_narrow_residuals_of_batches_are_seen_as_bytes(axis, count):
    numbers = torch.arange(24).reshape(2, 3, 4)[..., :count]
    layout = ResidualLayout.of("saved", numbers[0, 0], x64=False)

    def there_and_back(one):
        return layout.decode(layout.encode(one).clone())

    moved = numbers.movedim(0, axis)
    batched = torch.vmap(torch.vmap(there_and_back), axis, axis)
    assert_equal(batched(moved), moved)


@pytest.mark.parametrize("op", [torch.sort, torch.max, torch.cummax], ids=lambda op: op.__name__)
def test_one_index_of_a_batch_along_the_last_axis(op):
    wrapped = jax_callable(lambda x: op(x, -1)[0] ** 2)
    x = jnp.arange(1.0, 4.0).reshape(1, 3)
    slope = jax.vmap(jax.grad(lambda x: wrapped(x).sum()), in_axes=-1, out_axes=-1)
    assert_equal(slope(x), 2 * x)
    assert_equal(jax.jit(slope)(x), 2 * x)
