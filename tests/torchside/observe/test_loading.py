"""Planning loads torch's compiler, before it evaluates anything, and leaves alone who uses it."""

from __future__ import annotations

PRELUDE = """
import sys
import jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable
x = jnp.arange(6.0).reshape(2, 3)
"""


def test_it_is_loaded_by_the_first_plan_and_not_by_an_import(run_python):
    """A module that was loaded in the middle of an evaluation would make fakes for itself."""
    script = """
before = "torch._dynamo" in sys.modules
def f(x):
    assert "torch._dynamo" in sys.modules
    return x * 2
found = jax.jit(jax_callable(f))(x)
print(before, found.sum(), sys.modules["torch._dynamo"] is torch._dynamo)
"""
    assert run_python(PRELUDE + script).split() == ["False", "30.0", "True"]


def test_a_function_that_compiles_inside_is_evaluated_as_written(run_python):
    script = """
compiled = []
def backend(graph, inputs):
    compiled.append(graph)
    return graph.forward

def f(x):
    return torch.compile(lambda t: torch.sin(t) * 2, backend=backend, fullgraph=True)(x)

f = jax_callable(f)
jax.jit(f).lower(x)
print("compiled", len(compiled))
from torch._dynamo.eval_frame import _stance
print(_stance, torch._dynamo.config.error_on_nested_fx_trace)
from comparing import assert_close
assert_close(jax.jit(f)(x), 2 * jnp.sin(x))
assert_close(jax.grad(lambda x: f(x).sum())(x), 2 * jnp.cos(x))
"""
    lines = run_python(PRELUDE + script).strip().splitlines()
    assert lines[0] == "compiled 0"
    assert lines[1].startswith("DynamoStance(stance='default'")
    assert lines[1].endswith(" True")


def test_the_first_plan_may_be_made_inside_of_a_mode(run_python):
    script = """
with torch.device("cpu"):
    print(jax.jit(jax_callable(lambda x: x * 2))(x).sum())
"""
    assert run_python(PRELUDE + script).strip() == "30.0"


def test_another_thread_may_load_the_compiler_meanwhile(run_python):
    script = """
import threading
started = threading.Event()
faults = []

def load():
    started.wait()
    try:
        import torch._dynamo
        assert torch.compile(lambda t: t + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
    except BaseException as error:
        faults.append(error)

def f(x, n):
    for _ in range(200):
        x = torch.sin(x)
    return x + n

thread = threading.Thread(target=load)
thread.start()
started.set()
for n in range(6):
    jax.jit(jax_callable(lambda x, n=n: f(x, n)))(x)
thread.join()
assert not faults, faults
print("fine")
"""
    assert run_python(PRELUDE + script).strip() == "fine"
