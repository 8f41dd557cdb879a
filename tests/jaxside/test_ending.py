"""A process ends well whatever it has dispatched and not read. In child processes."""

from __future__ import annotations

import pytest

DEVICES = 4
FLAGS = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}

COPIES = """
import atexit, time, jax, jax.numpy as jnp, torch
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

# XLA's own part takes most of the time, so that mostly no call is under way.
MANY_CALLS = """
STEPS = 200
atexit.register(lambda: print(len(calls) == STEPS * jax.device_count()))  # runs last

@jax_callable
def half(x):
    if type(x) is torch.Tensor:
        calls.append(1)
    return x / 2

def steps(x):
    def step(_, x):
        y = half(jnp.sin(x) @ jnp.cos(x) / 300)
        return jax.lax.pmean(y, "d") if MEAN else y
    return jax.lax.fori_loop(0, STEPS, step, x)

x = jnp.ones((300, 300))
program = copies(steps)
if HELD:
    program = program.lower(x).compile()
program(x)
once_begun()
"""


def test_after_calls_under_way(run_python):
    """Python takes its lock away when it ends, and a call that asked for it then aborted."""
    assert run_python(COPIES + SLOW_CALL, env=FLAGS).strip() == "left"


@pytest.mark.parametrize("held", [False, True], ids=["dropped", "held"])
@pytest.mark.parametrize("mean", [False, True], ids=["apart", "collective"])
def test_after_programs_between_two_calls(mean, held, run_python):
    """A device that fails alone would have the others wait for it in vain."""
    script = f"{COPIES}\nMEAN, HELD = {mean}, {held}\n{MANY_CALLS}"
    assert run_python(script, env=FLAGS).strip() == "True"


TOO_LATE = """
from jaxtorch_bridge.torchside.native import native

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
