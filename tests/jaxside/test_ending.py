"""A process ends well whatever it has dispatched and not read. Mostly in child processes."""

from __future__ import annotations

import logging
import threading

import pytest

from jaxtorch_bridge.jaxside import end_of_process as ending

DEVICES = 2
FLAGS = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}

COPIES = """
import atexit, gc, os, signal, threading, time
import jax, jax.numpy as jnp, torch
from jax.sharding import PartitionSpec
from jaxtorch_bridge import jax_callable

calls = []
mesh = jax.make_mesh((jax.device_count(),), ("d",))
whole = PartitionSpec()

def copies(function):
    return jax.jit(jax.shard_map(
        function, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False))

def once_begun():
    while not calls:
        time.sleep(1e-3)

@jax_callable
def half(x):
    if type(x) is torch.Tensor:
        calls.append(1)
    return x / 2

def all_made(count):
    # Registered before anything is compiled, so it runs when all else has been waited for.
    atexit.register(lambda: print("made", len(calls) == count * jax.device_count()))
"""

SLOW_CALL = """
@jax_callable
def slow(x):
    if type(x) is torch.Tensor:
        calls.append(1)
        time.sleep(0.5)
    return x * 2

copies(slow)(jnp.ones(3))
once_begun()
print("left")
"""


def test_after_calls_under_way(run_python):
    """Python takes its lock away when it ends, and a call that asked for it then aborted."""
    assert run_python(COPIES + SLOW_CALL, env=FLAGS).strip() == "left"


# XLA's own part takes most of the time, so that mostly no call is under way.
MANY_CALLS = """
STEPS = 200
all_made(STEPS)

def steps(x):
    def step(_, x):
        y = half(jnp.sin(x) @ jnp.cos(x) / 300)
        return jax.lax.pmean(y, "d") if MEAN else y
    return jax.lax.fori_loop(0, STEPS, step, x)

x = jnp.ones((300, 300))
program = copies(steps)
if HELD:
    program = program.lower(x).compile()
"""
DISPATCHED = """
program(x)
once_begun()
"""


@pytest.mark.parametrize("held", [False, True], ids=["dropped", "held"])
@pytest.mark.parametrize("mean", [False, True], ids=["apart", "collective"])
def test_after_programs_between_two_calls(mean, held, run_python):
    """A device that fails alone would have the others wait for it in vain."""
    script = f"{COPIES}\nMEAN, HELD = {mean}, {held}\n{MANY_CALLS}\n{DISPATCHED}"
    assert run_python(script, env=FLAGS).strip() == "made True"


APART_FOR_LONG = """
def program(x):
    count = jnp.where(jax.lax.axis_index("d") == 0, 0, 15)
    x = jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ x / 1000), half(x))
    return jax.lax.pmean(half(x), "d")

all_made(2)
copies(program)(jnp.ones((1000, 1000)))
once_begun()
"""


def test_after_a_device_that_comes_much_later(run_python):
    """No call is made for longer than idle programs are waited for."""
    assert run_python(COPIES + APART_FOR_LONG, env=FLAGS).strip() == "made True"


FINALIZER = """
class Handle:
    two = 2.0
    def __del__(self):
        time.sleep(0.4)
        print("closed", threading.current_thread() is threading.main_thread())

def main():
    handle = Handle()
    def double(x):
        if type(x) is torch.Tensor:
            calls.append(1)
            time.sleep(0.2)
        return x * handle.two
    copies(jax_callable(double))(jnp.ones(3))
    once_begun()

main()
gc.collect()
"""


def test_after_what_a_function_closed_over(run_python):
    """The last to let the function go is a thread of XLA's, which runs its finalizers."""
    assert run_python(COPIES + FINALIZER, env=FLAGS).strip() == "closed False"


EARLY_HOOK = """
STEPS = 100

@jax_callable
def half(x):
    if type(x) is torch.Tensor:
        calls.append(1)
        if len(calls) == STEPS * jax.device_count():
            print("last call")
    return x / 2

@copies
def program(x):
    x = jax.lax.fori_loop(0, 400, lambda _, x: jnp.tanh(x @ x / 300), x)  # long without a call
    step = lambda _, x: jax.lax.pmean(half(jnp.sin(x) @ jnp.cos(x) / 300), "d")
    return jax.lax.fori_loop(0, STEPS, step, x)

@atexit.register
def hook():
    y = program(x)
    print("read", float(y[0, 0]) == first if READ else y.shape)

x = jnp.ones((300, 300))
first = float(program(x)[0, 0])
print("first")
del calls[:]
"""


@pytest.mark.parametrize(
    ("read", "printed"),
    [(True, ["last call", "read True"]), (False, ["read (300, 300)", "last call"])],
    ids=["read", "not-read"],
)
def test_exit_functions_that_call(read, printed, run_python):
    """One registered before the first call runs after ours, and may leave without reading."""
    script = f"{COPIES}\nREAD = {read}\n{EARLY_HOOK}"
    lines = run_python(script, env=FLAGS).split("\n")[:-1]
    assert lines == ["last call", "first", *printed]


INTERRUPTED = """
def interrupt():
    while len(calls) < 20:
        time.sleep(1e-3)
    os.kill(os.getpid(), signal.SIGINT)

program(x)
threading.Thread(target=interrupt, daemon=True).start()
"""


def test_an_interrupt_ends_the_wait(run_python):
    """Calls that come later fail, and the process ends by itself."""
    script = f"{COPIES}\nMEAN, HELD = False, False\n{MANY_CALLS}\n{INTERRUPTED}"
    assert run_python(script, env=FLAGS).strip() == "made False"


RAISES = """
def clear_caches():
    raise RuntimeError("not now")

jax.clear_caches = clear_caches
"""


def test_caches_that_cannot_be_cleared(run_python):
    """Then programs count as held."""
    script = f"{COPIES}\nMEAN, HELD = False, False\n{MANY_CALLS}\n{RAISES}\n{DISPATCHED}"
    assert run_python(script, env=FLAGS).strip() == "made True"


SHUT = """
from jaxtorch_bridge.torchside.handler.native_module import native
native().shut_out_xlas_threads = lambda: print("shut")
atexit.register(lambda: print("exit function"))
print(jax.jit(half)(jnp.ones(1)))
"""


def test_threads_are_shut_out_after_all_exit_functions(run_python):
    out = run_python(COPIES + SHUT, env=FLAGS).split("\n")
    assert out[:3] == ["[0.5]", "exit function", "shut"]


TOO_LATE = """
from jaxtorch_bridge.torchside.handler.native_module import native

double = jax_callable(lambda x: x * 2, name="double")
x = jnp.ones(3)
jax.block_until_ready(copies(double)(x))
native().shut_out_xlas_threads()
try:
    print(jax.block_until_ready(copies(double)(x)))
except jax.errors.JaxRuntimeError as error:
    print("double@0: not called, the Python interpreter is shutting down" in str(error))
print(jax.jit(double)(x))
"""


def test_too_late_on_a_thread_of_xlas(run_python):
    assert run_python(COPIES + TOO_LATE, env=FLAGS).split("\n")[:2] == ["True", "[2. 2. 2.]"]


class Native:
    """A native module where always as much is under way."""

    def __init__(self, calls: int, ops: int) -> None:
        self.now = (calls, 0, ops)
        self.shut = False

    def under_way(self) -> tuple[int, int, int]:
        return self.now

    def shut_out_xlas_threads(self) -> None:
        self.shut = True


def end(native: Native) -> None:
    at_the_end = ending._Ending(native, "jaxtorch_bridge.call")
    at_the_end.wait()
    del at_the_end


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(ending, "_SECONDS", 0.1)
    monkeypatch.setattr(ending, "_SHUT_OUT_SECONDS", 0.1)
    monkeypatch.setattr(ending, "_python_ends", lambda: True)
    # Clearing them would have every other test of this process compile again.
    monkeypatch.setattr("jax.clear_caches", lambda: None)


def test_programs_that_do_not_end_are_named(impatient, caplog):
    native = Native(calls=1, ops=3)
    with caplog.at_level(logging.WARNING, logger=ending.__name__):
        end(native)
    assert "calls under way: 1, ops that may be called again, and will fail: 3" in caplog.text
    assert native.shut


def two_programs() -> list[str]:
    text = 'custom-call(x), custom_call_target="jaxtorch_bridge.call:name@0"\n'
    return [text, text + text]


def programs_without_a_text() -> list[str]:
    raise NotImplementedError


@pytest.mark.parametrize("held", [two_programs, programs_without_a_text])
def test_idle_programs_are_left_in_silence(held, impatient, monkeypatch, caplog):
    monkeypatch.setattr(ending, "_SECONDS", 60.0)
    monkeypatch.setattr(ending.compat, "held_executables", held)
    native = Native(calls=0, ops=3)
    end(native)
    assert not caplog.records
    assert native.shut


@pytest.mark.parametrize("held", [two_programs, programs_without_a_text])
def test_held_programs_beside_something_that_computes(held, impatient, monkeypatch, caplog):
    """As OpenMP's idle threads do under OMP_WAIT_POLICY=ACTIVE."""
    monkeypatch.setattr(ending, "_SECONDS", 60.0)
    monkeypatch.setattr(ending, "_HELD_SECONDS", 0.3)
    monkeypatch.setattr(ending, "_COMPUTING", -1.0)  # any processor time is much
    monkeypatch.setattr(ending.compat, "held_executables", held)
    end(Native(calls=0, ops=3))
    assert not caplog.records


def test_a_process_whose_peer_has_died(impatient, monkeypatch, caplog):
    """It may wait for another process, but not for ever."""
    monkeypatch.setattr(ending, "_SECONDS", 60.0)
    monkeypatch.setattr(ending, "_QUIET_PROCESSES_SECONDS", 0.1)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(ending.compat, "held_executables", list)
    end(Native(calls=0, ops=3))
    assert not caplog.records


def test_exit_functions_that_are_called_while_the_process_goes_on(impatient, monkeypatch):
    monkeypatch.setattr(ending, "_python_ends", lambda: not threading.main_thread().is_alive())
    native = Native(calls=0, ops=0)
    end(native)
    assert not native.shut


def test_a_fork_ends_as_it_is(impatient, monkeypatch, caplog):
    """It has none of the threads of XLA's that calls would end in."""
    native = Native(calls=1, ops=3)
    at_the_end = ending._Ending(native, "jaxtorch_bridge.call")
    monkeypatch.setattr("os.getpid", lambda: -1)
    at_the_end.wait()
    del at_the_end
    assert not caplog.records
    assert not native.shut


def test_exit_functions_that_are_only_forgotten(impatient):
    """As ``multiprocessing`` does in its children: the process goes on."""
    native = Native(calls=1, ops=3)
    ending._Ending(native, "jaxtorch_bridge.call")
    assert not native.shut
