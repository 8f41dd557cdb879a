"""The record of exceptions between torch's failure and the eager call that raises it."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import TorchExecutionError, jax_callable
from jaxtorch_bridge.jaxside.eager_calls import finished
from jaxtorch_bridge.torchside.derive.tape.tape_table import TAPES
from jaxtorch_bridge.torchside.handler import failure_messages as faults
from jaxtorch_bridge.torchside.handler import gpu_memory

X = jnp.ones(3)


def real(tensor):
    return type(tensor) is torch.Tensor


def failing(error):
    def function(x):
        if real(x):
            raise error() if isinstance(error, type) else error
        return x * 2

    return jax_callable(function)


@jax_callable
def cyclic(x):
    """Leaves a tensor to the garbage collector."""
    if real(x):

        class Cycle:
            pass

        cycle = Cycle()
        cycle.itself, cycle.tensor = cycle, x
    return x * 2


def in_threads(*works):
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)


def fails_under_jit(error):
    program = jax.jit(failing(error))

    def call():
        local = Local()
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError)):
            program(X)
        return weakref.ref(local)

    return call


class Local:
    """What the caller of a failed call has in a variable."""


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_gpu_without_memory_says_what_to_set(jit):
    wrapped = failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    call = jax.jit(wrapped) if jit else wrapped
    with pytest.raises(Exception, match="Tried to allocate") as found:
        jax.block_until_ready(call(X))
    for name in ("XLA_PYTHON_CLIENT_MEM_FRACTION", "settings.tape_bytes", "jaxtorch doctor"):
        assert name in str(found.value)


def test_a_gpu_without_memory_says_who_holds_it(monkeypatch):
    gib = 1 << 30
    for name, value in {
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": lambda index: (gib // 2, 80 * gib),
        "memory_reserved": lambda index: 15 * gib,
        "memory_allocated": lambda index: 12 * gib,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(gpu_memory, "_kept", [lambda: {"cuda:1": 3 * gib}])
    wrapped = failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    with pytest.raises(TorchExecutionError) as found:
        wrapped(X)
    first, second = (line for line in str(found.value).splitlines() if line.startswith("cuda:"))
    assert "(0.00 GiB kept for backward passes)" in first
    assert second.startswith("cuda:1 has 80.00 GiB: torch took 15.00 GiB, of which tensors use 12")
    assert "3.00 GiB kept for backward passes" in second
    assert "64.50 GiB are JAX's" in second
    assert second.endswith("0.50 GiB are free.")


def test_what_is_kept_for_backward_passes_is_counted():
    assert TAPES.held in gpu_memory._kept


def test_exceptions_need_not_be_comparable():
    @dataclass
    class Fussy(Exception):
        data: torch.Tensor

    def error():
        return Fussy(torch.arange(2))

    in_threads(fails_under_jit(error()))
    with pytest.raises(TorchExecutionError) as raised:
        failing(error())(X)
    assert isinstance(raised.value.__cause__, Fussy)
    assert_equal(cyclic(X), X * 2)


def test_a_finalizer_may_call_torch_while_failures_are_forgotten():
    done = []

    class Resource:
        def __del__(self):
            done.append(cyclic(X))

    program = jax.jit(failing(ValueError))

    def caller():
        resource = Resource()
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError)):
            program(X)
        return resource is None

    def work():
        caller()
        cyclic(X)
        caller()
        cyclic(X)

    cyclic(X)
    in_threads(work)
    gc.collect()
    assert done


def test_of_two_equal_failures_each_thread_gets_its_own(monkeypatch):
    def error(x):
        if real(x):
            raise KeyError("the same words")
        return x * 2

    wrapped = jax_callable(error)
    with pytest.raises(TorchExecutionError):
        wrapped(X)
    claim, raised = faults.claim, {}
    first_failed, second_failed, first_is_done = (threading.Event() for _ in range(3))

    def held_back(text):
        if threading.current_thread().name == "first":
            first_failed.set()
            second_failed.wait(60)
        else:
            second_failed.set()
            first_is_done.wait(60)
        return claim(text)

    def call():
        try:
            wrapped(X)
        except Exception as found:
            raised[threading.current_thread().name] = found

    def first():
        threading.current_thread().name = "first"
        call()
        cyclic(X)  # forgets what this thread met before
        first_is_done.set()

    def second():
        threading.current_thread().name = "second"
        first_failed.wait(60)
        call()

    monkeypatch.setattr(faults, "claim", held_back)
    in_threads(first, second)
    assert {name: type(found.__cause__) for name, found in raised.items()} == {
        "first": KeyError,
        "second": KeyError,
    }


def test_variables_of_callers_are_let_go():
    call = fails_under_jit(ValueError)
    found = []
    for _ in range(5):
        in_threads(lambda: found.append(call()))
    call()  # the next failure of any thread forgets those of threads that have ended
    gc.collect()
    assert [reference() for reference in found] == [None] * 5


def test_a_collection_in_another_thread_is_waited_for():
    """Otherwise what only the collector frees would count as kept: a false escape."""
    failures = []

    def work():
        for _ in range(150):
            try:
                cyclic(X)
            except Exception as error:
                failures.append(error)

    cyclic(X)
    in_threads(*[work] * 4)
    assert not failures


def test_a_call_that_fails_and_keeps_a_tensor_raises_what_came_first():
    """Where JAX says nothing, as on a GPU, the words of the call itself are found."""
    kept = []

    @jax_callable
    def function(x):
        if real(x):
            kept.append(x)
            raise KeyError("first")
        return x * 2

    program = jax.jit(function)

    def silent(x):
        try:
            return program(x)
        except (jax.errors.JaxRuntimeError, ValueError):
            return x

    with pytest.raises(TorchExecutionError, match="first") as raised:
        finished(silent, (X,), faults.Watch)
    assert isinstance(raised.value.__cause__, KeyError)


ON_EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, torch
from jax.sharding import NamedSharding, PartitionSpec
from jaxtorch_bridge import TorchExecutionError, jax_callable

@jax_callable(spec={"schema": "jaxtorch/1", "name": "f", "version": "1.0.0", "sharding": {"n": "d"},
                    "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"}})
def sharded(x):
    if type(x) is torch.Tensor:
        if float(x[0]) == 6:
            raise KeyError("one shard")
        class Cycle: pass
        cycle = Cycle(); cycle.itself, cycle.tensor = cycle, x
    return x * 2

@jax_callable
def whole(x):
    if type(x) is torch.Tensor and float(x[0]) == 6:
        raise KeyError("every copy")
    return x * 2

explicit = jax.sharding.AxisType.Explicit
mesh = jax.make_mesh((8,), ("d",), axis_types=(explicit,))
cut = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, PartitionSpec("d")))
copies = jax.device_put(jnp.full(3, 6.0), NamedSharding(mesh, PartitionSpec()))
for call, x in [(sharded, cut), (whole, copies)] * 10:
    try:
        call(x)  # the result is not used
        print("returned")
    except TorchExecutionError as error:
        assert isinstance(error.__cause__, KeyError), error
assert np.asarray(sharded(cut + 1))[0] == 2
print("done")
"""


def test_eager_calls_on_several_devices_raise_what_torch_raised(run_python):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    assert run_python(ON_EIGHT_DEVICES, env=flags).split() == ["done"]


@pytest.mark.parametrize(
    ("function", "output"),
    [
        (lambda scores, y: torch.nn.functional.cross_entropy(scores, y), "float32[]"),
        (lambda scores, y: torch.nn.functional.one_hot(y, 3) + scores, "float32[n, n]"),
        (lambda scores, y: scores.take(y), "float32[n]"),
    ],
    ids=["cross_entropy", "one_hot", "take"],
)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_labels_that_jax_has_as_int32(function, output, jit):
    """What everybody meets first; both remedies that the message names work."""
    scores, y = jnp.ones((3, 3)), jnp.array([0, 1, 2])
    wrapped = jax_callable(function)
    with pytest.raises(
        Exception, match=r"(?s)Integers are int32 .* `y` here.*`y.long\(\)`.*int64\["
    ):
        jax.block_until_ready((jax.jit(wrapped) if jit else wrapped)(scores, y))
    wanted = function(torch.ones(3, 3), torch.arange(3))
    converting = jax_callable(lambda scores, y: function(scores, y.long()))
    assert_close(converting(scores, y), wanted)
    declared = jax_callable(
        function,
        spec={
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": {"scores": "float32[n, n]", "y": "int64[n]"},
            "outputs": {"z": output},
        },
    )
    assert_close(declared(scores, y), wanted)


def test_a_failure_that_is_about_something_else_has_no_such_advice():
    wrapped = jax_callable(lambda x, y: x @ x.new_zeros(7, 2) + y)
    with pytest.raises(Exception, match="the torch function raised") as caught:
        jax.block_until_ready(wrapped(jnp.ones((3, 3)), jnp.array([0, 1, 2])))
    assert "int32 in JAX" not in str(caught.value)
