"""Threads of XLA's keep their Python thread state: what is theirs, and how it ends.

In child processes. Threads of XLA's end with the JAX client that they belong to, when the last
array of it is gone.
"""

from __future__ import annotations

import pytest

FLAGS = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

START = """
import atexit, contextvars, ctypes, gc, os, sys, threading
import jax, jax.numpy as jnp, numpy as np, torch
from jax.extend.backend import clear_backends
from jax.sharding import PartitionSpec
from waiting import until

from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.handler.native_module import native

def copies(function):
    mesh, whole = jax.make_mesh((2,), ("d",)), PartitionSpec()
    return jax.jit(jax.shard_map(
        function, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False))

def calling(watch):
    '''A torch function that calls this when it runs.'''
    def half(x):
        if type(x) is torch.Tensor:
            watch()
        return x / 2
    return jax_callable(half)

# Else one thread may have been done with its call before the other's begins, and take that too.
two_threads = threading.Barrier(2)

def run(watch):
    def watch_at_once():
        two_threads.wait()
        watch()
    return jax.block_until_ready(copies(calling(watch_at_once))(jnp.ones(3)))

def end_client():
    jax.clear_caches()
    clear_backends()
    gc.collect()

api = ctypes.pythonapi
api.PyInterpreterState_Main.restype = api.PyInterpreterState_ThreadHead.restype = ctypes.c_void_p
api.PyThreadState_Next.restype = ctypes.c_void_p

def thread_states():
    interpreter = ctypes.c_void_p(api.PyInterpreterState_Main())
    count, state = 0, api.PyInterpreterState_ThreadHead(interpreter)
    while state:
        count, state = count + 1, api.PyThreadState_Next(ctypes.c_void_p(state))
    return count

class Ending:
    '''Something in a thread that tells when it goes, and from which thread.'''
    ended = []
    def __init__(self):
        self.thread = threading.get_ident()
    def __del__(self):
        Ending.ended.append(self.thread == threading.get_ident())

class Here(threading.local):
    calls = 0

here = Here()
"""

KEPT = """
seen = []

def count():
    here.calls += 1
    seen.append((threading.get_native_id(), here.calls))

states = thread_states()
for _ in range(3):
    run(count)
threads = {}
for thread, calls in seen:
    threads.setdefault(thread, []).append(calls)
print(all(calls == list(range(1, len(calls) + 1)) for calls in threads.values()), len(seen))
print(thread_states() - states == len(threads))
"""


def test_a_thread_keeps_its_state_from_call_to_call(run_python):
    assert run_python(START + KEPT, env=FLAGS).splitlines() == ["True 6", "True"]


LEFT_SET = """
variable = contextvars.ContextVar("variable", default="unset")
seen, contexts = [], []

def leave():
    seen.append((variable.get(), np.geterr()["divide"], torch.is_grad_enabled(),
                 torch.is_autocast_enabled("cpu")))
    variable.set("set by another call")
    np.seterr(divide="ignore")  # of numpy's, in a context variable
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)

for _ in range(3):
    run(leave)
print(len(seen), set(seen))
"""


def test_what_a_call_leaves_set_is_not_there_in_the_next(run_python):
    """Not in another function's, nor in its own: as where each call has a thread state."""
    found = run_python(START + LEFT_SET, env=FLAGS).strip()
    assert found == "6 {('unset', 'warn', True, False)}"


CALLBACK = """
jax.config.update("jax_cpu_enable_async_dispatch", False)  # so `inner` runs on its caller's thread
variable = contextvars.ContextVar("variable", default="unset")
outer, inner = [], []

called = calling(lambda: inner.append((threading.get_ident(), variable.get())))
within = jax.jit(called)
ones = np.ones(3, np.float32)
within(ones)
inner.clear()

def callback(x):
    variable.set("set")
    y = np.asarray(within(ones))
    outer.append(threading.get_ident())
    inner.append((threading.get_ident(), native().calls_here()[2]))
    return y

def program(x):
    y = calling(two_threads.wait)(x)
    return jax.pure_callback(callback, jax.ShapeDtypeStruct((3,), jnp.float32), y)

for _ in range(2):
    jax.block_until_ready(copies(program)(jnp.ones(3)))
wanted = [(thread, word) for thread in outer for word in ("set", False)]
print(len(outer), sorted(inner, key=str) == sorted(wanted, key=str))
"""


def test_python_code_that_jax_calls_on_such_a_thread_is_a_caller(run_python):
    """A torch call in it runs in its context, as on Python's own threads."""
    assert run_python(START + CALLBACK, env=FLAGS).strip() == "4 True"


ENDS_MEANWHILE = """
def fill():
    here.ending = Ending()

states = thread_states()
run(fill)
print(thread_states() - states, Ending.ended)
end_client()
until(lambda: len(Ending.ended) == 2)
print(thread_states() - states, Ending.ended)
run(fill)
print(thread_states() - states, Ending.ended)
"""


def test_threads_that_end_while_the_process_goes_on(run_python):
    """Each takes down what is its own, and threads that are new have states of their own."""
    lines = run_python(START + ENDS_MEANWHILE, env=FLAGS).splitlines()
    assert lines == ["2 []", "0 [True, True]", "2 [True, True]"]


SCOPES_IN_FINALIZERS = """
enter = ctypes.PYFUNCTYPE(ctypes.c_int)(("PyGILState_Ensure", api))
leave = ctypes.PYFUNCTYPE(None, ctypes.c_int)(("PyGILState_Release", api))
counts = []

class Scoped(Ending):
    def __del__(self):
        # As C++ code does that need not know whether it runs within Python.
        state = enter()
        counts.append(thread_states())
        leave(state)
        super().__del__()

def fill():
    here.ending = Scoped()

states = thread_states()
run(fill)
end_client()
until(lambda: len(Ending.ended) == 2)
print(max(counts) - states, thread_states() - states, Ending.ended)
"""


def test_finalizers_of_a_thread_that_ends_may_enter_python(run_python):
    lines = run_python(START + SCOPES_IN_FINALIZERS, env=FLAGS).strip()
    assert lines == "2 0 [True, True]"


ENDS_WITH_PYTHON = """
array = run(lambda: None)
"""


def test_threads_that_end_while_python_finalizes(run_python):
    """The module's globals hold the client: it ends with them, and its threads too."""
    assert run_python(START + ENDS_WITH_PYTHON, env=FLAGS) == ""


ENDS_BESIDE_PYTHON = """
through, shut_out = threading.Event(), threading.Event()
native_shut_out = native().shut_out_xlas_threads

def shut_out_xlas_threads():
    within = native_shut_out()
    if not shut_out.is_set():
        print("waits", within > 0)
        shut_out.set()
    if not within:
        through.wait()  # a thread of Python's that is a daemon must not want its lock any more
    return within

native().shut_out_xlas_threads = shut_out_xlas_threads

begun, first = threading.Event(), threading.Lock()

class Slow:
    def __del__(self):
        begun.set()
        shut_out.wait()
        print("closed")

def fill():
    if first.acquire(blocking=False):
        here.ending = Slow()

held = [run(fill)]
jax.clear_caches()
clear_backends()

def end():
    held.clear()
    gc.collect()
    through.set()

threading.Thread(target=end, daemon=True).start()
begun.wait()
"""


def test_python_waits_for_threads_that_end_beside_it(run_python):
    """Their finalizers are Python code of XLA's threads like any other."""
    lines = run_python(START + ENDS_BESIDE_PYTHON, env=FLAGS).splitlines()
    assert lines == ["waits True", "closed"]


FORK = """
def count():
    here.calls += 1
    here.ending = Ending()

def in_child(function):
    child = os.fork()
    if child == 0:
        print(thread_states(), end=" ")
        function()
        sys.stdout.flush()
        os._exit(3)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

states = thread_states()
run(count)
in_child(lambda: print(len(Ending.ended), here.calls, native().shut_out_xlas_threads()))

first = threading.Lock()

def fork():
    count()
    if first.acquire(blocking=False):
        in_child(lambda: print(here.calls, native().calls_here()))

run(fork)
run(count)
print(thread_states() - states)
"""


def test_a_fork_has_the_state_of_the_thread_that_forks(run_python):
    """Python takes those of the others down there, with all that is in them."""
    lines = run_python(START + FORK, env=FLAGS).splitlines()
    assert lines == ["1 2 0 0", "child 3", "1 2 (1, False, True)", "child 3", "2"]


SUB_INTERPRETERS = """
import sys
try:
    import _interpreters as interpreters  # from Python 3.13 on
    apart, together = ("isolated",), ("legacy",)
except ImportError:
    import _xxsubinterpreters as interpreters
    apart, together = {"isolated": True}, {"isolated": False}

if LOADED:
    import jaxtorch_bridge._native

script = f'''
import sys
sys.path[:0] = {sys.path}
try:
    import jaxtorch_bridge._native
    print("loaded")
except RuntimeError as error:
    print(error, flush=True)
'''
for kind in (apart, together):
    made = interpreters.create(**kind) if isinstance(kind, dict) else interpreters.create(*kind)
    interpreters.run_string(made, script)
"""


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not-loaded"])
def test_a_sub_interpreter_is_refused(loaded, run_python):
    """With a GIL of its own or without, also where the main interpreter has the module."""
    lines = run_python(f"LOADED = {loaded}\n{SUB_INTERPRETERS}").splitlines()
    words = (
        "jaxtorch_bridge runs torch in Python's main interpreter alone, and this is a "
        "sub-interpreter. Call it from the main one, or start a process."
    )
    assert lines == [words, words]
