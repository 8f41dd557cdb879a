"""The suite of streams, and that it finds each order that a handler may fail to make."""

from __future__ import annotations

import contextlib
import ctypes

import pytest
import torch

from jaxtorch_bridge import StreamOrderError, jax_callable
from jaxtorch_bridge._compat.torch.cuda_streams import stream_functions
from jaxtorch_bridge.testing.streams import CASES, check_streams
from jaxtorch_bridge.torchside.handler.native_module import native

pytest.importorskip("cupy")

# Their places among `stream_functions`.
CURRENT_STREAM, MAKE_GUARD, WAIT = 0, 1, 6
ANY = ctypes.c_void_p


@contextlib.contextmanager
def handler_by(functions):
    # The first call of the process looks for them itself.
    jax_callable(lambda x: x + 1)(torch.zeros(1, device="cuda").cpu().numpy())
    native().set_stream_functions(functions)
    try:
        yield
    finally:
        native().set_stream_functions(stream_functions())


def without(edge):
    """The C functions, of which one leaves out what makes an edge; and what has to stay alive."""
    functions = list(stream_functions())
    real = {
        CURRENT_STREAM: ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ANY)),
        MAKE_GUARD: ctypes.CFUNCTYPE(ctypes.c_int32, ANY, ctypes.c_int32, ctypes.POINTER(ANY)),
        WAIT: ctypes.CFUNCTYPE(ctypes.c_int, ANY, ANY, ctypes.c_uint),
    }
    calls = {place: kind(functions[place]) for place, kind in real.items()}

    def on_its_own_stream(stream, device, guard):
        own = ANY()
        calls[CURRENT_STREAM](device, ctypes.byref(own))
        return calls[MAKE_GUARD](own, device, guard)

    def wait_but_for_one(stream, event, flags):
        # Torch is on XLA's stream: who waits is that one before the call, torch's own behind it.
        is_before = (stream or 0) == torch.cuda.current_stream().cuda_stream
        if is_before is (edge == "before"):
            return 0
        return calls[WAIT](stream, event, flags)

    place = MAKE_GUARD if edge == "current" else WAIT
    replaced = real[place](on_its_own_stream if edge == "current" else wait_but_for_one)
    functions[place] = ctypes.cast(replaced, ANY).value
    return tuple(functions), replaced


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("how", ["by C functions", "by Python"])
def test_everything_is_in_order(case, how):
    with handler_by(stream_functions() if how == "by C functions" else None):
        check_streams(jax_callable, cases=[case])


@pytest.mark.parametrize(
    ("edge", "case"),
    [(edge, case) for case in CASES for edge in sorted(case.needs) if case.devices == 1],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_case_tells_when_what_it_needs_is_missing(edge, case):
    functions, alive = without(edge)
    with handler_by(functions), pytest.raises(StreamOrderError, match=case.name):
        check_streams(jax_callable, cases=[case])
    del alive
    torch.cuda.synchronize()
