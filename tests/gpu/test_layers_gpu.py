"""Torch's layers on CUDA, many of which take other kernels there than on the CPU."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from gpu_arrays import normal, tensor_of
from jaxtorch_bridge import from_module, jax_callable

pytestmark = [
    pytest.mark.gpu,
    # Arrays are not the one piece of memory that cuDNN would have weights in.
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous"),
]

nn = torch.nn


class Last(nn.Module):
    """The sequence that a recurrent layer gives."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.layer(x, x, x, need_weights=False)[0]


LAYERS = {
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2)), 4, 3, 9, 9),
    "batch_norm": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()), 4, 3, 9, 9),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), 2, 3, 9),
    "group_norm": (lambda: nn.GroupNorm(2, 4), 3, 4, 5),
    "lstm": (lambda: Last(nn.LSTM(6, 8, batch_first=True)), 2, 5, 6),
    "gru": (lambda: Last(nn.GRU(6, 8, num_layers=2, batch_first=True)), 2, 5, 6),
    "attention": (Attention, 2, 7, 16),
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True), 2, 7, 16),
}  # fmt: skip


def near(one, other):
    # Products of float32 may be taken in TF32, which has the digits of float16, in several layers.
    assert_close(one, other, factor=4, scale=1e-3, computed_in="float16")


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients(gpu, name):
    make, *shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().cuda()
    twin = copy.deepcopy(layer)
    net, x = from_module(layer), normal(*shape)

    def loss(params, x):
        y = net.apply(params, x)
        y = y[0] if isinstance(y, tuple) else y
        return (y * jnp.linspace(-1, 2, y.size).reshape(y.shape)).sum()

    found, found_x = jax.jit(jax.grad(loss, (0, 1)))(net.params, x)
    tensor = tensor_of(x).requires_grad_()
    y = twin(tensor)
    (y * torch.linspace(-1, 2, y.numel(), device="cuda").reshape(y.shape)).sum().backward()
    near(jax.jit(jax_callable(layer))(x), y)
    near(found_x, tensor.grad)
    expected = {key: parameter.grad for key, parameter in twin.named_parameters()}
    flat = {
        ".".join(str(step.key) for step in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    }
    assert flat.keys() == expected.keys()
    for key, gradient in expected.items():
        near(flat[key], gradient)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_recurrent_layers_are_planned_without_a_run(gpu, jit):
    layer = nn.LSTM(6, 8, batch_first=True).cuda()
    wrapped, x = jax_callable(lambda x: layer(x)[0]), normal(2, 5, 6)
    near((jax.jit(wrapped) if jit else wrapped)(x), layer(tensor_of(x))[0])
    assert "extra runs   0" in wrapped.explain(x)


@pytest.mark.parametrize("inside", [False, True])
def test_autocast(gpu, inside):
    def function(x, w):
        if not inside:
            return x @ w
        with torch.autocast("cuda", torch.bfloat16):
            return x @ w

    wrapped = jax_callable(function)
    x, w = normal(16, 16), normal(16, 16, seed=1)
    with torch.autocast("cuda", torch.bfloat16, enabled=not inside):
        y = wrapped(x, w)
        expected = function(tensor_of(x), tensor_of(w))
        gradient = jax.jit(jax.grad(lambda x: wrapped(x, w).astype("float32").sum()))(x)
    assert y.dtype == jnp.bfloat16
    near(y, expected)
    near(gradient, tensor_of(w).sum(1).expand(16, 16))


def test_indices(gpu):
    table, at = normal(10, 4), jax.device_put(jnp.array([3, 1, 3]), gpu)
    wrapped = jax_callable(lambda table, at: nn.functional.embedding(at, table).tanh())
    found = jax.jit(jax.grad(lambda table: wrapped(table, at).sum()))(table)
    twin = jax.grad(lambda table: jnp.tanh(table[at]).sum())(table)
    assert_close(found, twin)


def test_a_tensor_that_escapes_keeps_its_values_with_all_its_views(gpu):
    kept = []

    def keeps(x):
        if not isinstance(x, torch._subclasses.FakeTensor):
            kept.extend([x, x[1:], x.t()])
        return x * 2

    x = normal(3, 4)
    with pytest.raises(Exception, match="expected torch to be done with it"):
        jax.block_until_ready(jax.jit(jax_callable(keeps))(x))
    values = np.asarray(x)
    for tensor, expected in zip(kept, [values, values[1:], values.T], strict=True):
        assert not (
            x.unsafe_buffer_pointer() <= tensor.data_ptr() < x.unsafe_buffer_pointer() + x.nbytes
        )
        assert_equal(tensor.cpu(), expected)
    kept[0][1, 0] = 7
    assert float(kept[1][0, 0]) == 7
    assert float(kept[2][0, 1]) == 7
