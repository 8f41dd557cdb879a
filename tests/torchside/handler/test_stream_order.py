"""What a call on a GPU is ordered with: told here by functions that stand for CUDA's and torch's.

That the order they make is enough is for `tests/gpu`.
"""

from __future__ import annotations

import ctypes

import jax
import jax.numpy as jnp
import pytest
import torch

from cuda_functions import DEVICE, OWN, XLAS, Cuda
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge._compat.torch.cuda_streams import current_stream_by, stream_functions
from jaxtorch_bridge.torchside.handler import cuda_streams
from jaxtorch_bridge.torchside.handler.native_module import native
from jaxtorch_bridge.torchside.op.stream_order import is_ordered

ENTER, LEAVE = ["current_stream", "make_guard"], ["drop_guard"]
EDGE = ["record_event", "wait_for_event"]


def test_a_call_waits_for_torchs_stream_and_torchs_stream_for_the_call():
    cuda = Cuda()
    assert cuda.run(lambda: cuda.calls.append(("function",)) or 7) == 7
    assert cuda.names == [*ENTER, "stream_query", *EDGE, "function", *EDGE, *LEAVE]
    noted = [call for call in cuda.calls if call[0] in EDGE]
    before, after = noted[0][1], noted[2][1]
    assert noted == [
        ("record_event", before, OWN),
        ("wait_for_event", XLAS, before, 0),
        ("record_event", after, XLAS),
        ("wait_for_event", OWN, after, 0),
    ]
    assert before != after
    assert ("make_guard", XLAS, DEVICE) in cuda.calls
    assert ("drop_guard", 0x99) in cuda.calls


def test_for_an_idle_stream_nobody_waits():
    cuda = Cuda(busy=False)
    cuda.run(lambda: cuda.calls.append(("function",)))
    assert cuda.names == [*ENTER, "stream_query", "function", *EDGE, *LEAVE]


def test_a_call_that_touches_nothing_of_torchs_is_not_ordered_with_it():
    cuda = Cuda()
    cuda.run(ordered=False)
    assert cuda.names == [*ENTER, *LEAVE]


def test_one_stream_has_an_order_of_its_own():
    cuda = Cuda(own=XLAS)
    cuda.run()
    assert cuda.names == [*ENTER, *LEAVE]


def test_events_are_made_once_for_each_device():
    cuda = Cuda()

    def both():
        for device in (0, 1, 0, 1):
            native().on_stream(device, XLAS, True, lambda: None)

    cuda.run(both)
    # The call around these is on device 1 itself.
    assert cuda.made == 4


def test_a_function_that_fails_leaves_torch_on_its_own_stream():
    cuda = Cuda()

    def function():
        raise ValueError("no")

    assert isinstance(cuda.run(function), ValueError)
    assert cuda.names[-3:] == [*EDGE, *LEAVE]


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        ("current_stream", "torch error 700, in asking for torch's current stream"),
        ("make_guard", "torch error 700, in going to XLA's stream"),
        ("make_event", "CUDA error 700, in having XLA's stream wait for torch's"),
        ("record_event", "CUDA error 700, in having XLA's stream wait for torch's"),
        ("wait_for_event", "CUDA error 700, in having XLA's stream wait for torch's"),
    ],
)
def test_what_fails_is_said_and_the_function_not_run(failing, words):
    cuda = Cuda(failing=(failing,))
    ran = []
    error = cuda.run(lambda: ran.append(1))
    assert isinstance(error, RuntimeError)
    assert words in str(error)
    assert not ran
    # Only what was made is dropped.
    assert ("drop_guard" in cuda.names) is (failing not in ("current_stream", "make_guard"))


@pytest.mark.parametrize("wrong", [(1, 2), 3, ("a",) * 7])
def test_other_than_seven_addresses_are_refused(wrong):
    with pytest.raises(TypeError):
        native().set_stream_functions(wrong)


class TestByName:
    def test_all_or_none_are_found(self):
        class Library(dict):
            def __missing__(self, name):
                raise AttributeError(name)

        function = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
        names = cuda_streams.stream_functions.__globals__["_NAMES"]
        assert len(stream_functions(Library(dict.fromkeys(names, function)))) == 7
        assert stream_functions(Library(dict.fromkeys(names[:-1], function))) is None

    def test_a_torch_without_cuda_has_none(self):
        if torch.version.cuda is None:
            assert stream_functions() is None

    def test_what_is_found_is_asked(self):
        assert current_stream_by(Cuda().addresses, 0) == OWN
        assert current_stream_by(Cuda(failing=("current_stream",)).addresses, 0) is None


class Stream:
    device_index = 0

    def __init__(self, pointer, busy=True):
        self.cuda_stream, self.busy = pointer, busy

    def query(self):
        return not self.busy


class TestByPython:
    """Where C functions are not found."""

    @pytest.fixture
    def calls(self, monkeypatch):
        noted = []

        class Event:
            def record(self, stream):
                noted.append(("record", stream.cuda_stream))

            def wait(self, stream):
                noted.append(("wait", stream.cuda_stream))

        own = Stream(OWN)
        monkeypatch.setattr(cuda_streams, "_events", cuda_streams._Events())
        monkeypatch.setattr(cuda_streams, "_stream", lambda pointer, device: Stream(pointer))
        monkeypatch.setattr(cuda_streams, "current_stream", lambda device: own)
        monkeypatch.setattr(cuda_streams, "_first", cuda_streams._First())
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(
            torch.cuda, "set_stream", lambda stream: noted.append(("set", stream.cuda_stream))
        )
        return noted

    @pytest.mark.parametrize("ordered", [True, False])
    def test_edges_are_made_where_the_plan_says_so(self, calls, ordered):
        native().on_stream(0, XLAS, ordered, lambda: calls.append("function"))
        before, after = (
            [("record", OWN), ("wait", XLAS)],
            [("record", XLAS), ("wait", OWN)],
        )
        if not ordered:
            before, after = [], []
        assert calls == [*before, ("set", XLAS), "function", *after, ("set", OWN)]

    @pytest.mark.parametrize("says", ["right", "wrong"])
    def test_the_first_call_finds_the_functions_that_say_what_torch_says(
        self, calls, says, monkeypatch
    ):
        cuda, taken = Cuda(), []
        monkeypatch.setattr(
            torch.cuda,
            "set_stream",
            lambda stream: setattr(cuda, "own", stream.cuda_stream if says == "right" else OWN),
        )
        monkeypatch.setattr(cuda_streams, "stream_functions", lambda: cuda.addresses)
        monkeypatch.setattr(
            cuda_streams,
            "native_library",
            lambda: type(
                "Library", (), {"set_stream_functions": lambda _, one: taken.append(one)}
            )(),
        )
        for _ in range(2):
            native().on_stream(0, XLAS, True, lambda: None)
        assert taken == ([cuda.addresses] if says == "right" else [])


WEIGHT = torch.ones(3)


def twice(x):
    return x * 2


def with_an_import(x):
    import math

    return x * math.pi


def op_of(wrapped):
    planned, _ = wrapped._placed((jnp.ones(3),), {})
    return planned.op


class TestPlans:
    @pytest.mark.parametrize(
        ("function", "ordered"),
        [
            (lambda x: torch.sin(x) * 2 + x.sum(), False),
            (torch.sin, True),  # whatever that is: its code is not Python's
            (lambda x: x * WEIGHT, True),
            (lambda x: twice(x), True),
            (with_an_import, True),
            (torch.nn.Linear(3, 3), True),
        ],
    )
    def test_of_the_functions_own_code(self, function, ordered):
        op = op_of(jax_callable(function))
        assert is_ordered(op.program) is ordered

    def test_a_number_in_a_closure_is_no_tensor(self):
        factor, table = 2.0, [2.0]
        assert not is_ordered(op_of(jax_callable(lambda x: x * factor)).program)
        assert is_ordered(op_of(jax_callable(lambda x: x * table[0])).program)

    def test_a_graph_says_all_that_it_touches(self):
        wrapped = jax_callable(lambda x: twice(x), backend="graph")
        assert not is_ordered(op_of(wrapped).program)

    def test_what_waits_for_a_backward_is_kept(self):
        wrapped = jax_callable(lambda x: torch.sin(x))
        jax.grad(lambda x: wrapped(x).sum())(jnp.ones(3))
        op = op_of(wrapped)
        (kept,) = op.derived.named("linearize")
        assert is_ordered(kept.forward.program)
