"""Do kernels on a GPU run in the order that JAX, torch and CuPy programs say?

For any handler that gives torch functions to JAX on CUDA: each case has a kernel that waits before
it writes, so that who reads too early finds what was there before. Not yet run on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ..errors import StreamOrderError
from ..transfer import j2t, t2j
from .late_kernels import LateKernels

# What a handler has to see to, each of which some case fails without. ``current``: the stream that
# XLA runs the call on is torch's current one. ``before``: it waits for what was queued on torch's
# own stream. ``after``: torch's own stream waits for the call.
Edge = Literal["current", "before", "after"]
Wrap = Callable[[Callable[..., torch.Tensor]], Callable[..., jax.Array]]


@dataclass(frozen=True)
class StreamCase:
    """One way in which work of several libraries follows each other.

    Attributes:
        name: In one word or a few.
        needs: What of a handler it tells.
        run: Gives pairs of what was found and what it has to be.
        devices: How many GPUs it takes.
    """

    name: str
    needs: frozenset[Edge]  # it fails without any one of them
    run: Callable[[Setting], Iterable[tuple[Any, float]]]
    devices: int = 1


@dataclass(frozen=True)
class Setting:
    """What the cases run with.

    Attributes:
        wrap: From a torch function to a JAX function.
        late: Kernels that write late.
        jitted: Call under ``jax.jit``.
        size: Elements of each array, all of one value.
        device: Number of the GPU.
    """

    wrap: Wrap
    late: LateKernels
    jitted: bool
    size: int
    device: int = 0

    def call(self, function: Callable[..., torch.Tensor]) -> Callable[..., jax.Array]:
        """The function as JAX calls it; it has run once, so that all is planned and compiled."""
        wrapped = self.wrap(function)
        return jax.jit(wrapped) if self.jitted else wrapped

    def array(self, value: float) -> jax.Array:
        """On the device, and there when this returns."""
        device = jax.devices("cuda")[self.device]
        array: jax.Array = jax.device_put(np.full(self.size, value, np.float32), device)
        array.block_until_ready()
        return array

    def tensor(self, value: float) -> torch.Tensor:
        """Likewise."""
        tensor = torch.full((self.size,), value, device=f"cuda:{self.device}")
        torch.cuda.synchronize(self.device)
        return tensor


def check_streams(
    wrap: Wrap,
    *,
    cases: Sequence[StreamCase] | None = None,
    size: int = 1 << 16,
    milliseconds: float = 20.0,
    repeats: int = 3,
) -> list[str]:
    """Run cases in which work on CUDA streams has to be in order, eagerly and under ``jax.jit``.

    Args:
        wrap: Makes JAX functions of torch functions of one float32 array, as `jax_callable` does.
        cases: Those to run; all by default. Those that need more GPUs than there are are left out.
        size: Elements of each array.
        milliseconds: How late kernels write.
        repeats: How often each is run.

    Returns:
        The names of the cases that were run.

    Raises:
        StreamOrderError: Something ran too early; says in which cases.
        RuntimeError: There is no GPU that torch and JAX see, or no CuPy.
    """
    cupy = _cupy()
    chosen = CASES if cases is None else cases
    there = min(torch.cuda.device_count(), len(jax.devices("cuda")))
    chosen = [case for case in chosen if case.devices <= there]
    failed: list[str] = []
    for jitted in (False, True):
        setting = Setting(wrap, LateKernels(cupy, milliseconds), jitted, size)
        for case in chosen:
            words = _first_difference(case, setting, repeats)
            if words:
                failed.append(f"{case.name} ({'jitted' if jitted else 'eager'}): {words}")
    if failed:
        raise StreamOrderError(
            f"{len(failed)} of {2 * len(chosen)} runs read what had not been written yet, or wrote "
            f"what was still read: {'; '.join(failed)}. Each case says in `needs` what the handler "
            "has to see to."
        )
    return [case.name for case in chosen]


def _cupy() -> ModuleType:
    if not torch.cuda.is_available():
        raise RuntimeError("check_streams: expected a CUDA device; torch sees none")
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        raise RuntimeError("check_streams: expected a CUDA device; JAX sees none") from error
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            "check_streams: expected CuPy; install cupy-cuda13x or cupy-cuda12x, or "
            "jaxtorch-bridge[cuda]"
        ) from error
    found: ModuleType = cupy
    return found


def _first_difference(case: StreamCase, setting: Setting, repeats: int) -> str:
    for _ in range(repeats):
        for found, wanted in case.run(setting):
            values = np.unique(np.asarray(found))
            if values.tolist() != [wanted]:
                return f"expected {wanted} everywhere, got {values[:5].tolist()}"
    return ""


# -- Kernels of CuPy inside of the function


def _kernel_inside(s: Setting) -> Iterable[tuple[Any, float]]:
    call = s.call(lambda x: s.late.add(x, 1.0))
    call(s.array(0.0)).block_until_ready()
    yield call(s.array(3.0)) * 2, 8.0


def _after_a_long_kernel_of_jax(s: Setting) -> Iterable[tuple[Any, float]]:
    call = s.call(lambda x: s.late.add(x, 1.0) * 2)

    def busy(x: jax.Array) -> jax.Array:
        found: jax.Array = jax.lax.fori_loop(0, 20_000, lambda _, y: y + 1.0, x)
        return found

    whole = jax.jit(lambda x: call(busy(x)))
    whole(s.array(0.0)).block_until_ready()
    yield whole(s.array(1.0)), 40_004.0
    long = jax.jit(busy)
    yield call(long(s.array(2.0))), 40_006.0


def _chain(s: Setting) -> Iterable[tuple[Any, float]]:
    call = s.call(lambda x: s.late.add(x + 1, 1.0) * 2)

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(4):
            x = jnp.floor(call(x) / 2)
        return x

    run = jax.jit(chain) if s.jitted else chain
    run(s.array(0.0)).block_until_ready()
    yield run(s.array(1.0)), 9.0


def _other_streams_of_cupy(s: Setting) -> Iterable[tuple[Any, float]]:
    cupy = s.late.cupy
    streams = {"null": cupy.cuda.Stream.null, "ptds": cupy.cuda.Stream.ptds}
    for name in ("null", "ptds", "blocking", "non-blocking"):
        other = streams.get(name) or cupy.cuda.Stream(non_blocking=name == "non-blocking")

        def function(x: torch.Tensor, other: Any = other) -> torch.Tensor:
            current = s.late.stream()
            other.wait_event(current.record())
            found = s.late.add(x, 1.0, stream=other)
            current.wait_event(other.record())
            return found + 1

        call = s.call(function)
        call(s.array(0.0)).block_until_ready()
        yield call(s.array(3.0)) * 2, 10.0


# -- What is queued on torch's own stream, and what a call leaves to it


def _written_before(s: Setting) -> Iterable[tuple[Any, float]]:
    weight = s.tensor(0.0)
    call = s.call(lambda x: x + weight)
    call(s.array(0.0)).block_until_ready()
    s.late.fill(weight, 5.0)
    yield call(s.array(1.0)), 6.0


def _read_after(s: Setting) -> Iterable[tuple[Any, float]]:
    kept = s.tensor(0.0)

    def function(x: torch.Tensor) -> torch.Tensor:
        s.late.add(x, 1.0, out=kept)
        return x + 1

    call = s.call(function)
    call(s.array(0.0)).block_until_ready()
    kept.fill_(0.0)
    torch.cuda.synchronize(s.device)
    call(s.array(6.0))
    yield kept.clone().cpu().numpy(), 7.0


def _overwritten_after(s: Setting) -> Iterable[tuple[Any, float]]:
    weight = s.tensor(2.0)
    call = s.call(lambda x: s.late.add(x, 0.0) + s.late.add(weight, 0.0))
    call(s.array(0.0)).block_until_ready()
    found = call(s.array(1.0))
    # The call has still to read it.
    weight.fill_(100.0)
    yield found, 3.0


def _on_side_streams(s: Setting) -> Iterable[tuple[Any, float]]:
    for priority in (0, -1):
        with torch.cuda.stream(torch.cuda.Stream(s.device, priority=priority)):
            yield from _written_before(s)
            yield from _read_after(s)


def _on_an_external_stream(s: Setting) -> Iterable[tuple[Any, float]]:
    stream = s.late.cupy.cuda.Stream(non_blocking=True)
    with torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr, device=s.device)):
        yield from _written_before(s)
        yield from _read_after(s)


def _events_of_torch(s: Setting) -> Iterable[tuple[Any, float]]:
    side = torch.cuda.Stream(s.device)

    def function(x: torch.Tensor) -> torch.Tensor:
        begun = torch.cuda.Event()
        begun.record()
        with torch.cuda.stream(side):
            begun.wait()
            found = s.late.add(x, 1.0)
            ended = torch.cuda.Event()
            ended.record()
        ended.wait()
        found.record_stream(torch.cuda.current_stream())
        return found * 2

    call = s.call(function)
    call(s.array(0.0)).block_until_ready()
    yield call(s.array(3.0)), 8.0


def _two_threads(s: Setting) -> Iterable[tuple[Any, float]]:
    found: list[tuple[Any, float]] = []
    errors: list[BaseException] = []

    def work(value: float) -> None:
        try:
            weight = s.tensor(0.0)
            call = s.call(lambda x: s.late.add(x, 1.0) + weight)
            call(s.array(0.0)).block_until_ready()
            with torch.cuda.stream(torch.cuda.Stream(s.device)):
                for number in range(5):
                    s.late.fill(weight, value + number)
                    found.append((call(s.array(1.0)), 2.0 + value + number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in (10.0, 20.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    yield from found


def _two_devices(s: Setting) -> Iterable[tuple[Any, float]]:
    there = [replace(s, device=device) for device in (0, 1)]
    for one in there:
        with torch.cuda.device(one.device):
            yield from _kernel_inside(one)
            yield from _written_before(one)
            yield from _read_after(one)
    # Called from a thread whose current device is the other one.
    with torch.cuda.device(0):
        yield from _kernel_inside(there[1])
        if torch.cuda.current_device() != 0:
            raise StreamOrderError("a call on device 1 has left it torch's current device")


# -- One memory for all


def _dlpack(s: Setting) -> Iterable[tuple[Any, float]]:
    """A zero for each direction in which an array keeps its address."""
    cupy = s.late.cupy
    array, tensor, own = s.array(1.0), s.tensor(2.0), cupy.full(s.size, 3.0, cupy.float32)
    cupy.cuda.get_current_stream().synchronize()
    pairs = [
        (array.unsafe_buffer_pointer(), j2t(array).data_ptr()),
        (array.unsafe_buffer_pointer(), cupy.from_dlpack(array).data.ptr),
        (tensor.data_ptr(), t2j(tensor).unsafe_buffer_pointer()),
        (tensor.data_ptr(), cupy.from_dlpack(tensor).data.ptr),
        (own.data.ptr, torch.utils.dlpack.from_dlpack(own).data_ptr()),
        (own.data.ptr, jax.dlpack.from_dlpack(own).unsafe_buffer_pointer()),
        (own.data.ptr, t2j(torch.utils.dlpack.from_dlpack(own)).unsafe_buffer_pointer()),
    ]
    seen: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.data_ptr() - cupy.from_dlpack(x).data.ptr)
        return s.late.add(x, 1.0)

    call = s.call(function)
    yield call(array), 2.0
    yield call(t2j(tensor)), 3.0
    yield call(jax.dlpack.from_dlpack(own)), 4.0
    yield [float(one - other) for one, other in pairs], 0.0
    yield [float(one) for one in seen], 0.0


def _late_through_dlpack(s: Setting) -> Iterable[tuple[Any, float]]:
    cupy = s.late.cupy
    call = s.call(lambda x: x + 1)
    call(s.array(0.0)).block_until_ready()
    tensor = s.tensor(0.0)
    s.late.fill(tensor, 4.0)
    yield call(t2j(tensor)), 5.0
    own = cupy.zeros(s.size, cupy.float32)
    s.late.fill(own, 6.0, stream=cupy.cuda.get_current_stream())
    yield call(jax.dlpack.from_dlpack(own)), 7.0
    found = s.call(lambda x: s.late.add(x, 1.0))(s.array(7.0))
    yield cupy.asnumpy(cupy.from_dlpack(found) + 1), 9.0
    yield (j2t(found) + 1).cpu().numpy(), 9.0


_CURRENT: frozenset[Edge] = frozenset(("current",))
_BEFORE: frozenset[Edge] = frozenset(("before",))
_AFTER: frozenset[Edge] = frozenset(("after",))

CASES: tuple[StreamCase, ...] = (
    StreamCase("a kernel inside", _CURRENT, _kernel_inside),
    StreamCase("after a long kernel of JAX's", _CURRENT, _after_a_long_kernel_of_jax),
    StreamCase("a chain", _CURRENT, _chain),
    StreamCase("other streams of CuPy's", _CURRENT, _other_streams_of_cupy),
    StreamCase("events of torch's", _CURRENT, _events_of_torch),
    StreamCase("written before a call", _BEFORE, _written_before),
    StreamCase("read after a call", _AFTER, _read_after),
    StreamCase("overwritten after a call", _AFTER, _overwritten_after),
    StreamCase("on side streams", _BEFORE | _AFTER, _on_side_streams),
    StreamCase("on an external stream", _BEFORE | _AFTER, _on_an_external_stream),
    StreamCase("two threads", _BEFORE | _AFTER, _two_threads),
    StreamCase("two devices", _BEFORE | _AFTER, _two_devices, devices=2),
    StreamCase("one memory for all", frozenset(), _dlpack),
    StreamCase("late through DLPack", frozenset(), _late_through_dlpack),
)
