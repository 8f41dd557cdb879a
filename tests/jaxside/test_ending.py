"""A process ends well whatever it has dispatched and not read. In child processes.

Nothing here waits for luck: a call of torch that is to be under way when Python ends waits for
an event that is set then.
"""

from __future__ import annotations

import pytest

FLAGS = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

START = """
import atexit, os, signal, sys, threading, time
import jax, jax.numpy as jnp, torch
from jax.sharding import PartitionSpec

calls, completed = [], []
# It runs when all else has been waited for: it is registered before the library is imported.
atexit.register(lambda: print("calls", len(calls), "completed", len(completed)))

from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.jaxside import end_of_process as ending
from jaxtorch_bridge.torchside.handler.native_module import native

leaving = threading.Event()
atexit.register(leaving.set)

def copies(function):
    mesh, whole = jax.make_mesh((2,), ("d",)), PartitionSpec()
    return jax.jit(jax.shard_map(
        function, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False))

def function_that_waits_for(event):
    @jax_callable
    def half(x):
        if type(x) is torch.Tensor:
            calls.append(1)
            event.wait()
            time.sleep(0.01)
            completed.append(1)
        return x / 2
    return half

half = function_that_waits_for(leaving)
x = jnp.ones((100, 100))

def once_begun(count=1):
    while len(calls) < count:
        time.sleep(1e-3)
"""

PROGRAMS = """
STEPS = 20

def steps(mean):
    def step(_, x):
        y = half(jnp.sin(x) @ jnp.cos(x) / 300)
        return jax.lax.pmean(y, "d") if mean else y
    return lambda x: jax.lax.fori_loop(0, STEPS, step, x)

one, apart, collective = jax.jit(steps(False)), copies(steps(False)), copies(steps(True))
"""


@pytest.mark.parametrize("held", [False, True], ids=["dropped", "held"])
@pytest.mark.parametrize(("program", "calls"), [("one", 40), ("apart", 80), ("collective", 80)])
def test_dispatched_programs_are_completed(program, calls, held, run_python):
    """Two runs: of the first a call is under way, and the second has not begun.

    With more than one device the second is dispatched when Python ends, since JAX waits.
    """
    compiled = f"{program}.lower(x).compile()" if held else program
    script = f"{START}{PROGRAMS}\nprogram = {compiled}\n"
    script += "program(x)\nonce_begun()\natexit.register(lambda: program(x))\n"
    script += "atexit.register(leaving.set)\n"
    assert run_python(script, env=FLAGS).strip() == f"calls {calls} completed {calls}"


SWITCHES = """
collective(x)
one(x)
jax.set_mesh(jax.make_mesh((1,), ("other",), devices=jax.devices()[1:]))
jax.config.update("jax_disable_jit", True)
"""


def test_meshes_and_switches_that_still_hold_when_python_ends(run_python):
    lines = run_python(START + PROGRAMS + SWITCHES, env=FLAGS)
    assert lines.strip() == "calls 60 completed 60"


# What waits for this is under way when Python lets no more in: a program is cut off there.
CUT_OFF = """
shut_out = threading.Event()
half = function_that_waits_for(shut_out)
native_shut_out = native().shut_out_xlas_threads

def shut_out_xlas_threads():
    within = native_shut_out()
    shut_out.set()
    return within

native().shut_out_xlas_threads = shut_out_xlas_threads
"""

FINALIZER = """
dropped, closing = threading.Event(), threading.Event()

class Handle:
    two = 2.0
    def __del__(self):
        closing.set()
        shut_out.wait()
        time.sleep(0.1)
        print("closed", threading.current_thread() is threading.main_thread())

def main():
    handle = Handle()
    def double(x):
        if type(x) is torch.Tensor:
            dropped.wait()
        return x * handle.two
    copies(jax_callable(double))(x)

main()
import gc
gc.collect()
dropped.set()
closing.wait()
"""


def test_what_a_function_closed_over(run_python):
    """The last to let the function go is a thread of XLA's, which runs its finalizers."""
    lines = run_python(START + CUT_OFF + FINALIZER, env=FLAGS).splitlines()
    assert lines == ["closed False", "calls 0 completed 0"]


EXIT_FUNCTION = """
@atexit.register
def dispatch():
    leaving.set()
    y = collective(x)
    print("read", float(y[0, 0]) < 1 if READ else y.shape)
"""


@pytest.mark.parametrize("read", [True, False], ids=["read", "not-read"])
def test_exit_functions_may_have_torch_called(read, run_python):
    script = f"{START}{PROGRAMS}\nREAD = {read}\n{EXIT_FUNCTION}"
    lines = run_python(script, env=FLAGS).splitlines()
    assert lines == [f"read {True if read else (100, 100)}", "calls 40 completed 40"]


FAILS = """
@jax_callable
def fails(x):
    if type(x) is torch.Tensor:
        leaving.wait()
        raise ValueError("none")
    return x / 2

copies(fails)(x)
"""


def test_a_program_that_fails_when_python_ends(run_python):
    assert run_python(START + FAILS, env=FLAGS).strip() == "calls 0 completed 0"


OTHER_THREAD = """
thread = threading.Thread(target=one, args=[x])
thread.start()
thread.join()
once_begun()
"""


def test_a_program_on_one_device_that_another_thread_dispatched(run_python):
    """It is not waited for, but for the call that has begun."""
    lines = run_python(START + PROGRAMS + CUT_OFF + OTHER_THREAD, env=FLAGS)
    assert lines.strip() == "calls 1 completed 1"


# The device that has failed is one that the other waits for.
INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it

def interrupted(devices):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    print("not interrupted")

ending._run_on = interrupted

def program(x):
    first = jax.lax.axis_index("d") == 0
    y = jax.lax.cond(first, lambda x: half(half(x)), lambda x: x, x)
    return jax.lax.pmean(y, "d")

y = copies(program)(x)
once_begun()
"""


def test_an_interrupt_ends_the_wait_for_programs(run_python):
    """Not for the call that has begun. The other device would wait for 40 s, and then abort."""
    lines = run_python(START + CUT_OFF + INTERRUPTED, env=FLAGS)
    assert lines.strip() == "calls 1 completed 1"


TOO_LATE = """
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
    assert run_python(START + TOO_LATE, env=FLAGS).splitlines()[:2] == ["True", "[2. 2. 2.]"]


FORK = """
copies(half)(x)
once_begun(2)
child = os.fork()
if child == 0:
    # JAX's client cannot end there, even where it has run nothing of torch's.
    from jax._src import api
    atexit.unregister(api.clean_up)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(3)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_waits_for_nothing(run_python):
    """It has none of the threads of XLA's that would end its parent's calls."""
    lines = run_python(START + FORK, env=FLAGS).splitlines()
    assert lines == ["calls 2 completed 0", "child 3", "calls 2 completed 2"]


UNUSED = """
import atexit
from jax._src import xla_bridge
from jaxtorch_bridge.jaxside import end_of_process as ending
ending._end()
print(xla_bridge.backends_are_initialized())
"""


def test_a_process_that_calls_nothing_starts_no_backend(run_python):
    assert run_python(UNUSED).strip() == "False"
