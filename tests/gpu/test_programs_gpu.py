"""Modules, keys, declared writes, threads and memory on CUDA."""

from __future__ import annotations

import copy
import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from gpu_arrays import normal, tensor_of
from jaxtorch_bridge import from_module, j2t, jax_callable

pytestmark = pytest.mark.gpu


class Normed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Normed().cuda()


def test_parameters_share_the_modules_memory(gpu, module):
    net = from_module(module)
    weight = net.params["first"]["weight"]
    assert weight.unsafe_buffer_pointer() == module.first.weight.data_ptr()
    assert all(list(leaf.devices()) == [gpu] for leaf in jax.tree.leaves(net.params))


def test_training_a_module(gpu, module):
    twin = copy.deepcopy(module)
    net = from_module(module)
    x = normal(16, 3)

    @jax.jit
    def step(params, buffers, x):
        def loss(params):
            y, after = net.apply(params, x, buffers=buffers, train=True)
            return (y**2).mean(), after

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), after

    params, buffers = net.params, net.buffers
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(5):
        value, params, buffers = step(params, buffers, x)
        optimizer.zero_grad()
        expected = (twin(tensor_of(x)) ** 2).mean()
        expected.backward()
        optimizer.step()
        assert_close(value, expected, factor=20)  # as the next: other kernels, several steps
    y, _ = net.apply(params, x, buffers=buffers, train=False)
    assert_close(y, twin.eval()(tensor_of(x)), factor=20)


def test_a_module_and_arrays_on_different_devices_are_told_apart(gpu):
    with pytest.raises(Exception, match="cpu"):
        jax_callable(torch.nn.Linear(3, 3))(normal(2, 3))
    module = torch.nn.Linear(3, 3).cuda()
    x = jax.device_put(np.ones((2, 3), np.float32), jax.devices("cpu")[0])
    with pytest.raises(Exception, match="cuda"):
        jax_callable(module)(x)
    # Another kernel may take a product with so few rows.
    assert_close(jax_callable(module)(normal(2, 3)), module(tensor_of(normal(2, 3))), factor=10)


def test_randomness_follows_the_key(gpu):
    dropout = jax_callable(lambda x: torch.nn.functional.dropout(x, 0.5), random="key")
    x = normal(1000)
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    one, other = jax.random.key(0), jax.random.key(1)
    y = dropout(x, rng=one)
    assert set(np.unique((np.asarray(y) / np.asarray(x)).round(3))) == {0.0, 2.0}
    assert_equal(jax.jit(lambda x, k: dropout(x, rng=k))(x, one), y)
    assert (dropout(x, rng=other) != y).any()
    slope = jax.jit(jax.grad(lambda x: dropout(x, rng=one).sum()))(x)
    assert_close(slope * x, y)
    keys = jax.random.split(one, 3)
    rows = jax.vmap(lambda k: dropout(x, rng=k))(keys)
    for row, key in zip(rows, keys, strict=True):
        assert_equal(row, dropout(x, rng=key))
    assert_equal(before, torch.cuda.get_rng_state())


def test_declared_writes_go_to_the_donated_buffer(gpu):
    def write(cache, x, at):
        cache.index_copy_(0, at.long(), x)
        return cache.sum()

    spec = {
        "schema": "jaxtorch/1", "name": "write", "version": "1.0.0", "mutates": ["cache"],
        "inputs": {"cache": "float32[n, d]", "x": "float32[k, d]", "at": "int32[k]"},
        "outputs": {"total": "float32[]", "cache": "float32[n, d]"},
    }  # fmt: skip
    wrapped = jax_callable(write, spec=spec)
    step = jax.jit(wrapped, donate_argnums=0)
    cache = jax.device_put(jnp.zeros((1 << 16, 64)), gpu)
    address = cache.unsafe_buffer_pointer()
    x, at = normal(2, 64), jax.device_put(jnp.array([3, 5], jnp.int32), gpu)
    total, cache = step(cache, x, at)
    assert cache.unsafe_buffer_pointer() == address
    assert_equal(cache[jnp.array([3, 5])], x)
    assert_close(total, np.asarray(x).sum(), factor=20, scale=1)  # of four million elements


def test_threads(gpu):
    wrapped = jax_callable(lambda x, y: (x @ y).tanh())
    failures = []

    def work(seed):
        x, y = normal(8, 8, seed=seed), normal(8, 8, seed=seed + 100)
        wanted = np.tanh(np.asarray(x) @ np.asarray(y))
        call = jax.jit(lambda x, y: wrapped(x, y))
        try:
            for _ in range(200):
                # Products may be taken in TF32, which has the digits of float16.
                assert_close(call(x, y), wanted, computed_in="float16", factor=2)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_a_large_input_is_not_copied(gpu):
    wrapped = jax_callable(lambda x: x.sum())
    call = jax.jit(wrapped)
    x = jax.device_put(jnp.ones(1 << 28), gpu)  # 1 GiB
    jax.block_until_ready(call(jnp.ones(8)))
    jax.block_until_ready(x)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    held, peak = torch.cuda.memory_allocated(), gpu.memory_stats()["bytes_in_use"]
    assert float(call(x)) == 1 << 28
    assert torch.cuda.max_memory_allocated() - held < 64 << 20
    assert gpu.memory_stats()["bytes_in_use"] - peak < 64 << 20


def test_many_calls_keep_no_memory(gpu):
    wrapped = jax_callable(lambda x: torch.tanh(x) * 2)
    call = jax.jit(wrapped)
    x = normal(1000, 1000)
    jax.block_until_ready([call(x) for _ in range(20)])
    gc.collect()
    held, other = torch.cuda.memory_allocated(), gpu.memory_stats()["bytes_in_use"]
    for _ in range(500):
        result = call(x)
    jax.block_until_ready(result)
    gc.collect()
    assert torch.cuda.memory_allocated() == held
    assert gpu.memory_stats()["bytes_in_use"] - other <= 2 * x.nbytes


def test_programs_on_both_devices_of_one_process(gpu):
    seen = set()

    def function(x):
        seen.add(x.device.type)
        return x * 2

    wrapped = jax_callable(function)
    on_cpu = jax.device_put(jnp.arange(3.0), jax.devices("cpu")[0])
    on_gpu = jax.device_put(jnp.arange(3.0), gpu)
    call = jax.jit(wrapped)
    for x in (on_cpu, on_gpu, on_cpu, on_gpu):
        result = call(x)
        assert result.devices() == x.devices()
        assert_equal(result, [0, 2, 4])
    gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
    for x in (on_gpu, on_cpu):
        assert_equal(gradient(x), [2, 2, 2])
    assert seen == {"cpu", "cuda"}


def test_results_last_while_torch_reuses_its_memory(gpu):
    """A result that torch made is copied to XLA before torch's allocator hands it out again."""
    wrapped = jax.jit(jax_callable(lambda x: torch.stack([x, x * 2]).flatten()[1:]))
    xs = [normal(1000, seed=seed) for seed in range(50)]
    results = [wrapped(x) for x in xs]
    for _ in range(10):
        torch.full((2000,), -7.0, device="cuda")
    for x, result in zip(xs, results, strict=True):
        values = np.asarray(x)
        assert_equal(result, np.concatenate([values, values * 2])[1:])


def test_a_side_stream_of_the_caller_is_waited_for(gpu):
    weight = torch.zeros(4096, 4096, device="cuda")
    eye = torch.eye(4096, device="cuda")
    wrapped = jax.jit(jax_callable(lambda x: x + weight))
    x = jax.device_put(jnp.zeros((4096, 4096)), gpu)
    jax.block_until_ready(wrapped(x))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        power = eye
        for _ in range(50):
            power = power @ eye
        weight.add_(power.amax())
        result = wrapped(x)
    assert float(result.min()) == 1


def test_a_shared_tensor_changes_after_the_call(gpu):
    """Torch's later work on what a call reads waits for the call."""
    weight = torch.ones(4096, 4096, device="cuda")
    wrapped = jax.jit(jax_callable(lambda x: (x @ x @ x @ x @ x @ x) + weight))
    x = jax.device_put(jnp.eye(4096), gpu)
    jax.block_until_ready(wrapped(x))
    for _ in range(5):
        result = wrapped(x)
        weight.fill_(7.0)
        assert float(result[0, 1]) == 1
        weight.fill_(1.0)
    assert_close(j2t(result)[0, :2].cpu().numpy(), np.array([2.0, 1.0]))
