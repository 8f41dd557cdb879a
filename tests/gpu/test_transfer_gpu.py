"""t2j and j2t on CUDA: addresses, devices and the order of work on both sides' streams."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge.dtypes import DTYPES, canonical_name
from jaxtorch_bridge.errors import TransferError
from jaxtorch_bridge.transfer import dtype_t2j, j2t, t2j

pytestmark = pytest.mark.gpu

every_dtype = pytest.mark.parametrize("name", DTYPES)
shapes = pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (2, 0)], ids=str)


@pytest.fixture(autouse=True)
def _both_sides_have_cuda() -> None:
    if not torch.cuda.is_available() or jax.default_backend() != "gpu":
        pytest.skip("torch and JAX both need a CUDA device")


def shares(tensor: torch.Tensor, array: jax.Array) -> bool:
    return tensor.data_ptr() == array.unsafe_buffer_pointer()


def bits(value: torch.Tensor | jax.Array) -> bytes:
    if isinstance(value, torch.Tensor):
        if not value.numel():
            return b""
        return value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return np.asarray(value).tobytes()


@shapes
@every_dtype
@pytest.mark.parametrize("x64", [True, False], ids=["x64", "x32"])
def test_t2j_shares_on_the_same_device(name: str, shape: tuple[int, ...], x64: bool) -> None:
    count = int(np.prod(shape))
    host = torch.arange(1, count + 1).to(getattr(torch, name)).reshape(shape)
    tensor = host.cuda()
    held = canonical_name(name, x64=x64)
    with jax.enable_x64(x64):
        array = t2j(tensor)
        assert next(iter(array.devices())).platform == "gpu"
        assert bits(array) == bits(host.to(getattr(torch, held)))
    if count:
        assert shares(tensor, array) == (held == name)


@shapes
@every_dtype
def test_j2t_shares_on_the_same_device(name: str, shape: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        array = jnp.asarray(np.ones(shape, dtype_t2j(getattr(torch, name))))
    tensor = j2t(array, copy=False)
    assert (tensor.device.type, tensor.dtype) == ("cuda", getattr(torch, name))
    assert bits(tensor) == bits(array)
    if tensor.numel():
        assert shares(tensor, array)
        assert not shares(j2t(array, copy=True), array)


@pytest.mark.parametrize("copy", [None, True])
def test_t2j_waits_for_the_current_stream(copy: bool | None) -> None:
    tensor = torch.zeros(4096, 4096, device="cuda")
    eye = torch.eye(4096, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        power = eye
        for _ in range(50):  # some hundred milliseconds of queued work before the write
            power = power @ eye
        tensor.add_(power.amax())
        array = t2j(tensor, copy=copy)
    assert float(jnp.min(array + 1)) == 2


@pytest.mark.parametrize("copy", [None, True])
def test_j2t_waits_for_jax(copy: bool | None) -> None:
    @jax.jit
    def slow(x: jax.Array) -> jax.Array:
        return jnp.asarray(jax.lax.fori_loop(0, 100, lambda _, y: y @ x, x) + 1)

    x = jnp.eye(4096)
    slow(x).block_until_ready()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        total = j2t(slow(x), copy=copy).double().sum().item()
    assert total == 4096 * 4097


def test_views_are_copied_and_right() -> None:
    base = torch.arange(24.0, device="cuda").reshape(4, 6)
    for view in (base.t(), base[:, ::2], base.reshape(-1)[1:]):
        assert_equal(t2j(view), view.cpu().numpy())
        with pytest.raises(TransferError, match="copy=False, but"):
            t2j(view, copy=False)


def test_pinned_memory_stays_on_the_host() -> None:
    tensor = torch.ones(3, pin_memory=True)
    assert next(iter(t2j(tensor).devices())).platform == "cpu"
    with pytest.raises(TransferError, match="in pinned memory"):
        t2j(tensor, copy=False)


def test_array_outlives_its_tensor() -> None:
    tensor = torch.arange(4096.0, device="cuda")
    array = t2j(tensor, copy=False)
    del tensor
    torch.full((4096,), -7.0, device="cuda")
    assert_equal(array, np.arange(4096))
