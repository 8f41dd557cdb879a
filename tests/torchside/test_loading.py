"""Garbage collection is off while torch loads its tracing tools, and comes back on any way out."""

from __future__ import annotations

import gc

import pytest

from jaxtorch_bridge._compat import torch_fakes, torch_graphs
from jaxtorch_bridge._compat.torch_fakes import loading


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(torch_fakes, "_loaded", set())
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_is_off_the_first_time_only():
    for first in (True, False):
        with loading("a part"):
            assert gc.isenabled() is not first
        assert gc.isenabled()


def test_it_comes_back_after_a_failure_and_is_off_the_next_time():
    for _ in range(2):
        with pytest.raises(ImportError, match=r"^False$"), loading("a part"):
            raise ImportError(gc.isenabled())
        assert gc.isenabled()


def test_a_caller_who_has_switched_it_off_finds_it_off():
    gc.disable()
    with loading("a part"):
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_parts_within_parts():
    with loading("outer"):
        with loading("inner"):
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_loading_is_over_when_tracing_begins():
    torch_graphs.load()
    assert gc.isenabled()
    assert {"fake tensors", "graphs"} <= torch_fakes._loaded


PRELUDE = """
import sys, warnings
import jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable
x = jnp.arange(6.0).reshape(2, 3)
"""


def test_a_plain_plan_does_not_load_torchs_compiler(run_python):
    script = """
f = jax_callable(lambda x: (x * 2 + 1).sum())
print(float(jax.jit(f)(x)), float(f(x)), "torch._dynamo" in sys.modules)
"""
    assert run_python(PRELUDE + script).split() == ["36.0", "36.0", "False"]


def test_the_compiler_is_whole_when_it_is_loaded_later(run_python):
    script = """
jax.jit(jax_callable(lambda x: x * 2))(x)
later = torch._dynamo
settings = later.config
assert "torch._dynamo" not in sys.modules
from torch._subclasses.fake_tensor import FakeTensorMode
assert later.disable.__module__ == "torch._dynamo.decorators"  # loads it
import torch._dynamo
assert torch._dynamo is sys.modules["torch._dynamo"] is not later
assert torch._dynamo.config is settings is sys.modules["torch._dynamo.config"]
double = torch.compile(lambda t: t * 2, backend="eager", fullgraph=True)
assert double(torch.ones(2)).tolist() == [2, 2]
jax.jit(jax_callable(lambda x: x * 3))(x)  # the marks are torch's own again
mark = FakeTensorMode.__torch_dispatch__.__wrapped__.__dynamo_disable
assert mark.__module__ != "jaxtorch_bridge._compat.torch_dynamo", mark
print("fine")
"""
    assert run_python(PRELUDE + script).strip() == "fine"


@pytest.mark.parametrize("way", ["import torch._dynamo", "from torch import _dynamo"])
def test_every_way_to_the_compiler_leads_to_all_of_it(run_python, way):
    script = f"""
jax.jit(jax_callable(lambda x: x * 2))(x)
{way}
import torch
print((torch._dynamo if "import torch." in {way!r} else _dynamo).list_backends)
"""
    assert "function list_backends" in run_python(PRELUDE + script)


def test_a_function_that_compiles_inside_is_evaluated_as_written(run_python):
    """It is the first to load the compiler, in the middle of its abstract evaluation."""
    script = """
compiled = []
def backend(graph, inputs):
    compiled.append(graph)
    return graph.forward

def f(x):
    return torch.compile(lambda t: torch.sin(t) * 2, backend=backend)(x)

f = jax_callable(f)
jax.jit(f).lower(x)
print("loaded", "torch._dynamo" in sys.modules, "compiled", len(compiled))
from torch._dynamo.eval_frame import _stance
print(_stance.stance, torch._dynamo.config.error_on_nested_fx_trace)
assert abs(jax.jit(f)(x) - 2 * jnp.sin(x)).max() < 1e-6
assert abs(jax.grad(lambda x: f(x).sum())(x) - 2 * jnp.cos(x)).max() < 1e-6
"""
    lines = run_python(PRELUDE + script).strip().splitlines()
    assert lines == ["loaded True compiled 0", "default True"]


def test_what_torch_loads_in_an_evaluation_holds_real_tensors(run_python, tmp_path):
    """A module's own tensors may not be the fakes of the evaluation that loaded it."""
    script = f"""
import pathlib
folder = pathlib.Path({str(tmp_path)!r})
(folder / "made_for_this_test.py").write_text("import torch\\nTABLE = torch.arange(3)")
torch.__path__.append(str(folder))

def f(x):
    from torch.made_for_this_test import TABLE
    return x + TABLE

with torch.device("cpu"):
    lowered = jax.jit(jax_callable(f)).lower(x)
from torch.made_for_this_test import TABLE
print(type(TABLE).__name__, TABLE.tolist(), lowered.compile()(x)[1].tolist())
"""
    assert run_python(PRELUDE + script).strip() == "Tensor [0, 1, 2] [3.0, 5.0, 7.0]"


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
    started.set()
    for _ in range(200):
        x = torch.sin(x)
    return x + n

thread = threading.Thread(target=load)
thread.start()
for n in range(6):
    jax.jit(jax_callable(lambda x, n=n: f(x, n)))(x)
thread.join()
assert not faults, faults
assert not [one for one in sys.meta_path if "torch_dynamo" in type(one).__module__]
from torch._dynamo.eval_frame import _stance
print(_stance.stance)
"""
    assert run_python(PRELUDE + script).strip() == "default"
