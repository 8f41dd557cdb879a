"""The CUDA path: XLA's buffers and XLA's stream, the same answers as on the CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxtorch_bridge import EscapeError, MutationError, TorchExecutionError, jax_callable
from jaxtorch_bridge.dtypes import DTYPES

pytestmark = pytest.mark.gpu


def unless_fake(tensor):
    return not isinstance(tensor, torch._subclasses.FakeTensor)


def on(device, *shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return jax.device_put(values, device)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_torch_works_on_xlas_buffer_and_stream(gpu, jit):
    seen = []

    def function(x):
        if unless_fake(x):
            seen.append((x.data_ptr(), x.device.type, torch.cuda.current_stream().cuda_stream))
        return x * 2 + 1

    wrapped = jax_callable(function)
    call = jax.jit(wrapped) if jit else wrapped
    x = on(gpu, 100, 100)
    before = torch.cuda.current_stream()
    result = call(x)
    np.testing.assert_allclose(result, np.asarray(x) * 2 + 1, rtol=1e-6)
    assert list(result.devices()) == [gpu]
    assert seen[0][0] == x.unsafe_buffer_pointer()
    assert seen[0][1] == "cuda"
    assert torch.cuda.current_stream() == before


def test_large_results_are_written_in_place(gpu):
    addresses = []

    def function(x, w):
        y = torch.tanh(x @ w)
        if unless_fake(y):
            addresses.append(y.data_ptr())
        return y

    wrapped = jax_callable(function)
    x, w = on(gpu, 1024, 1024), on(gpu, 1024, 1024, seed=1) / 32
    result = jax.jit(wrapped)(x, w)
    assert "in place, by aten.tanh.out" in wrapped.explain(x, w)
    assert result.unsafe_buffer_pointer() == addresses[-1]
    np.testing.assert_allclose(result, np.tanh(np.asarray(x) @ np.asarray(w)), atol=2e-3)
    found = jax.jit(jax.grad(lambda x, w: wrapped(x, w).sum(), (0, 1)))(x, w)
    expected = jax.grad(lambda x, w: jnp.tanh(x @ w).sum(), (0, 1))(x, w)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-2, rtol=2e-2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(gpu, dtype):
    with jax.enable_x64(True):
        for shape in [(), (0,), (5,), (2, 3)]:
            x = jax.device_put(jnp.ones(shape).astype(dtype), gpu)
            result = jax.jit(jax_callable(lambda x: (x, x.clone())))(x)
            for part in result:
                assert part.dtype == x.dtype
                assert np.asarray(part).tobytes() == np.asarray(x).tobytes()


def test_a_long_program_keeps_the_order_of_both_sides(gpu):
    """Work before and after the call, on both sides' streams, is seen in order."""
    weight = torch.ones(2000, 2000, device="cuda")
    wrapped = jax_callable(lambda x: x @ weight)
    program = jax.jit(lambda x: wrapped(x @ x) + 1)
    x = jax.device_put(jnp.eye(2000), gpu)
    for step in range(20):
        weight.fill_(float(step))  # on torch's own stream
        result = program(x)
        np.testing.assert_allclose(result[0, :5], np.full(5, step + 1.0))


def test_gradients(gpu):
    def function(x, w):
        return torch.nn.functional.gelu(x @ w).softmax(-1)

    x, w = on(gpu, 8, 5), on(gpu, 5, 7, seed=1)
    wrapped = jax_callable(function)
    mine = jax.jit(jax.grad(lambda x, w: (wrapped(x, w) ** 2).sum(), argnums=(0, 1)))(x, w)
    tensors = [torch.from_numpy(np.array(a)).cuda().requires_grad_() for a in (x, w)]
    (function(*tensors) ** 2).sum().backward()
    for gradient, tensor in zip(mine, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.cpu(), atol=1e-5)
    assert "saved residuals," in wrapped.explain(x, w)


def test_modules_and_functions_that_look_at_values(gpu):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.LayerNorm(5)).cuda()
    x = on(gpu, 4, 5)
    wanted = module(torch.from_numpy(np.array(x)).cuda()).detach().cpu()
    np.testing.assert_allclose(jax.jit(jax_callable(module))(x), wanted, atol=1e-5)
    looking = jax_callable(lambda x: x if x.sum() > 1e9 else -x)
    np.testing.assert_array_equal(looking(x), -np.asarray(x))
    np.testing.assert_array_equal(looking(x), -np.asarray(x))


def test_safety(gpu):
    x = on(gpu, 3, 4)
    before = np.array(x)
    with pytest.raises(MutationError):
        jax_callable(lambda x: x.add_(1))(x)
    kept = []

    def keeps(x):
        if unless_fake(x):
            kept.append(x)
        return x + 1

    with pytest.raises(EscapeError):
        jax_callable(keeps)(x)
    assert kept[0].data_ptr() != x.unsafe_buffer_pointer()
    np.testing.assert_array_equal(kept[0].cpu(), before)
    np.testing.assert_array_equal(x, before)


def test_failures_and_wrong_devices(gpu):
    x = on(gpu, 3)

    def fails(x):
        if unless_fake(x):
            raise KeyError("on the GPU")
        return x

    with pytest.raises(TorchExecutionError, match="on the GPU"):
        jax_callable(fails)(x)
    with pytest.raises(Exception, match="on the device of the inputs"):
        jax_callable(lambda x: x.cpu() if unless_fake(x) else x.clone())(x)
    np.testing.assert_array_equal(jax_callable(lambda x: x + 1)(x), np.asarray(x) + 1)


def test_cpu_arrays_on_a_machine_with_a_gpu(gpu):
    x = jax.device_put(jnp.arange(3.0), jax.devices("cpu")[0])
    np.testing.assert_array_equal(jax_callable(lambda x: x * 2)(x), [0, 2, 4])
