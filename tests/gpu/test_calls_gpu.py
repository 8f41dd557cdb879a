"""The CUDA path: XLA's buffers and XLA's stream, the same answers as on the CPU."""

from __future__ import annotations

import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
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
    assert_close(result, np.asarray(x) * 2 + 1)
    assert list(result.devices()) == [gpu]
    assert seen[0][0] == x.unsafe_buffer_pointer()
    assert seen[0][1] == "cuda"
    assert torch.cuda.current_stream() == before


def test_results_are_written_in_place_by_the_functions_own_out(gpu):
    addresses = []

    def function(x, w, out=None):
        y = torch.tanh(x @ w, out=out)
        if unless_fake(y):
            addresses.append(y.data_ptr())
        return y

    spec = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "float32[a, b]", "w": "float32[b, c]"},
        "outputs": {"y": "float32[a, c]"},
        "execution": {"outputs": "in_place"},
    }
    wrapped = jax_callable(function, spec=spec)
    x, w = on(gpu, 1024, 1024), on(gpu, 1024, 1024, seed=1) / 32
    result = jax.jit(wrapped)(x, w)
    assert "in place, by the function's own `out=`" in wrapped.explain(x, w)
    assert result.unsafe_buffer_pointer() == addresses[-1]
    # Products may be taken in TF32, which has the digits of float16.
    assert_close(result, np.tanh(np.asarray(x) @ np.asarray(w)), computed_in="float16")
    found = jax.jit(jax.grad(lambda x, w: wrapped(x, w).sum(), (0, 1)))(x, w)
    expected = jax.grad(lambda x, w: jnp.tanh(x @ w).sum(), (0, 1))(x, w)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, computed_in="float16")


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
        assert_close(result[0, :5], np.full(5, step + 1.0))


def test_gradients(gpu):
    def function(x, w):
        return torch.nn.functional.gelu(x @ w).softmax(-1)

    x, w = on(gpu, 8, 5), on(gpu, 5, 7, seed=1)
    wrapped = jax_callable(function)
    mine = jax.jit(jax.grad(lambda x, w: (wrapped(x, w) ** 2).sum(), argnums=(0, 1)))(x, w)
    tensors = [torch.from_numpy(np.array(a)).cuda().requires_grad_() for a in (x, w)]
    (function(*tensors) ** 2).sum().backward()
    for gradient, tensor in zip(mine, tensors, strict=True):
        assert_close(gradient, tensor.grad.cpu(), scale=1)
    assert "tape: " in wrapped.explain(x, w)


def test_modules_and_functions_that_look_at_values(gpu):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.LayerNorm(5)).cuda()
    x = on(gpu, 4, 5)
    wanted = module(torch.from_numpy(np.array(x)).cuda()).detach().cpu()
    assert_close(jax.jit(jax_callable(module))(x), wanted)
    looking = jax_callable(lambda x: x if x.sum() > 1e9 else -x)
    assert_equal(looking(x), -np.asarray(x))
    assert_equal(looking(x), -np.asarray(x))


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
    assert_equal(kept[0].cpu(), before)
    assert_equal(x, before)


def test_an_eager_call_raises_what_torch_raised(gpu):
    x = on(gpu, 3)

    def fails(x):
        if unless_fake(x):
            raise KeyError("on the GPU")
        return x

    wrapped = jax_callable(fails)
    for _ in range(2):
        with pytest.raises(TorchExecutionError, match="on the GPU") as raised:
            wrapped(x)
        assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(Exception, match="on the GPU"):
        jax.block_until_ready(jax.vmap(wrapped)(x[None]))
    with pytest.raises(jax.errors.JaxRuntimeError, match="on the GPU"):
        jax.block_until_ready(jax.jit(wrapped)(x))
    assert_equal(jax_callable(lambda x: x + 1)(x), np.asarray(x) + 1)


def test_a_failure_that_torch_code_handles_is_none(gpu):
    x = on(gpu, 3)

    def fails(x):
        if unless_fake(x):
            raise KeyError("inside")
        return x

    inner = jax.jit(jax_callable(fails))

    def outer(x):
        if unless_fake(x):
            with contextlib.suppress(Exception):
                jax.block_until_ready(inner(jnp.ones(2)))
        return x * 2

    assert_equal(jax_callable(outer)(x), np.asarray(x) * 2)


def test_the_host_waits_for_torch_and_not_for_the_gpu(gpu):
    done = []
    slow = torch.randn(8192, 8192, device="cuda")

    def function(x):
        y = x @ slow @ slow @ slow @ slow @ slow @ slow
        if unless_fake(x):
            done.append(threading.get_ident())
        return y

    wrapped = jax_callable(function)
    x = on(gpu, 8192, 8192)
    jax.block_until_ready(wrapped(x))
    result = wrapped(x)
    assert len(done) == 2
    print("on the thread of the caller:", done[1] == threading.get_ident())
    print("still running:", not result.is_ready())


def test_results_that_torch_makes_on_the_host_are_copied(gpu):
    x = on(gpu, 3)
    results = jax.jit(jax_callable(lambda x: (x * 2, torch.arange(3), torch.eye(2)[:, 1])))(x)
    for result, expected in zip(results, [np.asarray(x) * 2, [0, 1, 2], [0, 1]], strict=True):
        assert list(result.devices()) == [gpu]
        assert_equal(result, expected)
    drawn = jax_callable(lambda: torch.rand(4), random="key")
    key = jax.random.key(0)
    assert_equal(drawn(rng=key), jax.jit(lambda k: drawn(rng=k))(key))
    assert list(drawn(rng=key).devices()) == [gpu]


@pytest.mark.parametrize("x64", [False, True])
def test_constants_on_the_host_have_their_part_in_gradients(gpu, x64):
    def function(x):
        return x[torch.tensor([1, 0, 1])].exp() * torch.tensor(2.0) * torch.arange(3.0)[1].sin()

    with jax.enable_x64(x64):
        x = on(gpu, 4, 3)
        wrapped = jax_callable(function)
        tensor = torch.from_numpy(np.array(x)).cuda().requires_grad_()
        (function(tensor) ** 2).sum().backward()
        gradient = jax.jit(jax.grad(lambda x: (wrapped(x) ** 2).sum()))
        assert_close(gradient(x), tensor.grad.cpu())
        assert "tape: " in wrapped.explain(x)
        batch = jax.jit(jax.vmap(gradient))(jnp.stack([x, x]))
        assert_close(batch[1], tensor.grad.cpu())


def test_results_on_another_device_are_an_error(gpu):
    x = jax.device_put(jnp.arange(3.0), jax.devices("cpu")[0])
    function = jax_callable(lambda x: x.cuda() if unless_fake(x) else x.clone())
    with pytest.raises(Exception, match="on the device of the inputs"):
        jax.block_until_ready(function(x))


def test_cpu_arrays_on_a_machine_with_a_gpu(gpu):
    x = jax.device_put(jnp.arange(3.0), jax.devices("cpu")[0])
    assert_equal(jax_callable(lambda x: x * 2)(x), [0, 2, 4])
