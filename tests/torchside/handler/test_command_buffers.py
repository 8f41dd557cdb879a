"""What XLA is told of calls that it may record, and where torch allocates meanwhile.

That a recorded call gives what the call gives is for `tests/gpu`.
"""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from cuda_functions import XLAS, Cuda
from jaxtorch_bridge import ArgumentError, SpecError, from_module, jax_callable
from jaxtorch_bridge.torchside.handler.native_module import native
from jaxtorch_bridge.torchside.op import command_buffers
from jaxtorch_bridge.torchside.op.program import Program

X = jnp.ones(3)
# XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE of xla/ffi/api/c_api.h.
COMMAND_BUFFER_COMPATIBLE = 1


def test_xla_is_told_which_handler_it_may_record():
    assert native().handler_traits("CUDA", True) == COMMAND_BUFFER_COMPATIBLE
    assert native().handler_traits("CUDA") == 0
    assert native().handler_traits("cpu") == 0
    with pytest.raises(ValueError, match="expected the platform"):
        native().handlers("cpu", True)


def line_of(text):
    return next(line for line in text.splitlines() if line.startswith("cuda graph"))


def test_on_a_cpu_there_is_nothing_to_record():
    wrapped = jax_callable(lambda x: x * 2, backend="graph", cuda_graph=True)
    assert line_of(wrapped.explain(X)).endswith("not recorded: only a GPU has command buffers")
    assert_equal(jax.jit(wrapped)(X), 2 * X)
    assert "cuda graph" not in jax_callable(lambda x: x * 2, backend="graph").explain(X)


scale = 2.0
TABLE = {"scale": 2.0}


def with_a_number(x):
    return x * scale


def with_a_table(x):
    return x * TABLE["scale"]


def drawing(x):
    return x + torch.rand(3)


def plain(x):
    return torch.sin(x) * 2


LAYER = torch.nn.Linear(3, 3)


def with_a_layer(x):
    return LAYER(x)


REFUSED = {
    with_a_number: "what the function closes over may change",
    with_a_table: "what the function closes over may change",
    with_a_layer: "what the function closes over may change",
    drawing: "it draws random numbers",
}


@pytest.fixture
def words(monkeypatch):
    """What would be said of an op on a GPU, where torch captures it or gives a failure."""

    def words(op, failure=""):
        with monkeypatch.context() as patch:
            patch.setattr(Program, "device", "cuda")
            patch.setattr(command_buffers, "_failure", lambda program: failure)
            return command_buffers.recording_of(op.program).words

    return words


def op_of(wrapped, *arguments):
    planned, _placement = wrapped._placed(arguments, {})
    return planned.op


@pytest.mark.filterwarnings("ignore:drawing. the torch function draws")
@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_what_only_the_call_would_see_is_not_recorded(function, words):
    op = op_of(jax_callable(function, backend="graph", cuda_graph=True), X)
    assert f"not recorded: {REFUSED[function]}" in words(op)


def test_a_function_of_its_arguments_is_recorded(words):
    op = op_of(jax_callable(plain, backend="graph", cuda_graph=True), X)
    assert words(op) == command_buffers.RECORDED
    failure = "torch cannot capture it: RuntimeError: it waits"
    assert words(op, failure) == f"not recorded: {failure}"


def test_what_keeps_a_record_for_a_gradient_is_not_recorded(words):
    wrapped = jax_callable(plain, backend="graph", cuda_graph=True)
    jax.grad(lambda x: wrapped(x).sum())(X)
    (linearized,) = op_of(wrapped, X).derived.named("linearize")
    assert "no graph of it was captured" in words(linearized.forward)


def test_parameters_that_are_arguments_are_no_hindrance(words):
    net = from_module(torch.nn.Linear(3, 2), backend="graph", cuda_graph=True)
    op = op_of(net.callable(), net._params.named(net.params), net._own_buffers, X)
    assert words(op) == command_buffers.RECORDED


@pytest.mark.parametrize("backend", ["eager", "compile", "xla", None])
def test_a_function_whose_python_code_runs_is_refused(backend):
    with pytest.raises(ArgumentError, match="expected backend='graph' beside cuda_graph=True"):
        jax_callable(plain, backend=backend, cuda_graph=True)(X)
    with pytest.raises(ArgumentError, match="expected backend='graph' beside cuda_graph=True"):
        from_module(LAYER, backend=backend, cuda_graph=True)


CONTRACT = {
    "schema": "jaxtorch/1",
    "name": "plain",
    "version": "1.0.0",
    "inputs": {"x": "float32[3]"},
    "outputs": {"y": "float32[3]"},
}


def contract(**execution):
    return {**CONTRACT, "execution": execution}


def test_contracts_say_it():
    wrapped = jax_callable(plain, spec=contract(backend="graph", cuda_graph=True))
    assert "not recorded: only a GPU" in line_of(wrapped.explain(X))
    with pytest.raises(SpecError, match="false, or `backend: graph`"):
        jax_callable(plain, spec=contract(backend="xla", cuda_graph=True))
    with pytest.raises(SpecError, match="false, or `backend: graph`"):
        jax_callable(plain, spec=contract(cuda_graph=True))
    with pytest.raises(ArgumentError, match="Say it in one place"):
        jax_callable(plain, spec=contract(backend="graph", cuda_graph=True), cuda_graph=False)
    # Beside another one, for a comparison.
    assert "cuda graph" not in wrapped.with_backend("eager").explain(X)
    assert_close(wrapped.with_backend("eager")(X), wrapped(X))


class Pools:
    """What torch says of recording, and which pool it allocates from."""

    def __init__(self, monkeypatch):
        self.is_recording, self.current, self.made = True, None, 0
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.is_recording)
        monkeypatch.setattr(torch.cuda, "MemPool", self._make)
        monkeypatch.setattr(torch.cuda, "use_mem_pool", self._use)

    def _make(self):
        self.made += 1
        return f"pool {self.made}"

    @contextlib.contextmanager
    def _use(self, pool, device):
        before, self.current = self.current, (pool, device)
        try:
            yield
        finally:
            self.current = before


@pytest.fixture
def streams():
    """Functions that stand for torch's and CUDA's, by which the handler changes streams."""
    stand_in = Cuda()
    native().set_stream_functions(stand_in.addresses)
    yield stand_in
    native().set_stream_functions(None)


def called(pools, function, device=0):
    """As the handler calls a function that XLA may record."""
    return native().on_stream(device, XLAS, False, function, pools)


def test_each_executable_and_device_has_memory_of_its_own(monkeypatch, streams):
    torchs = Pools(monkeypatch)
    one, other = {}, {}
    seen = [
        called(pools, lambda: torchs.current, device)
        for pools, device in [(one, 0), (other, 0), (one, 1), (one, 0)]
    ]
    assert seen == [("pool 1", 0), ("pool 2", 0), ("pool 3", 1), ("pool 1", 0)]
    assert torchs.current is None


def test_without_recording_torch_allocates_as_ever(monkeypatch, streams):
    torchs = Pools(monkeypatch)
    torchs.is_recording = False
    pools = {}
    assert called(pools, lambda: torchs.current) is None
    assert not pools


def test_a_failure_leaves_the_pool(monkeypatch, streams):
    torchs = Pools(monkeypatch)

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        called({}, fail)
    assert torchs.current is None
