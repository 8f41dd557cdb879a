"""Ops live as long as a callable or an executable needs them, and memory stays flat."""

from __future__ import annotations

import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from comparing import assert_equal, is_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.handler.native_module import op_keys


def keys_of(name: str) -> list[str]:
    # The first pass frees the compiled programs, whose traces hold derivatives; these refer to each
    # other, and go in the second.
    gc.collect()
    gc.collect()
    return [key for key in op_keys() if key.startswith(name + "@")]


def test_dropping_the_callable_frees_its_entries():
    function = jax_callable(lambda x: (x * 2).sum(), name="dropped")
    for size in range(1, 6):
        x = jnp.ones(size)
        function(x)
        jax.grad(function)(x)
    assert len(keys_of("dropped")) == 15  # call, forward and backward of each shape
    del function
    assert keys_of("dropped") == []


def test_an_executable_keeps_its_op():
    function = jax_callable(lambda x: x * 3, name="compiled")
    x = jnp.ones(4)
    compiled = jax.jit(function).lower(x).compile()
    del function
    assert len(keys_of("compiled")) == 1
    assert_equal(compiled(x), x * 3)
    del compiled
    jax.clear_caches()
    assert keys_of("compiled") == []


def test_a_lowered_program_keeps_its_op_until_it_is_compiled():
    function = jax_callable(lambda x: x * 4, name="lowered")
    x = jnp.ones(4)
    lowered = jax.jit(function).lower(x)
    del function
    gc.collect()
    assert_equal(lowered.compile()(x), x * 4)


def test_the_same_plan_is_one_op():
    function = jax_callable(lambda x: x + 1, name="once")
    x = jnp.ones(3)
    function(x)
    jax.jit(lambda x: function(x))(x)
    jax.jit(lambda x: function(x) * 2)(x)
    assert len(keys_of("once")) == 1


def test_functions_that_look_alike_never_share_an_op():
    """Same code, other closures: the keys are told apart, and so are the results."""
    tables = [object(), object()]
    values = {id(tables[0]): 10.0, id(tables[1]): 20.0}

    def make(table):
        return jax_callable(lambda x: x * values[id(table)], name="alike")

    first, second = make(tables[0]), make(tables[1])
    x = jnp.ones(2)
    assert float(first(x)[0]) == 10.0
    assert float(second(x)[0]) == 20.0
    assert float(jax.jit(first)(x)[0]) == 10.0
    assert float(jax.jit(second)(x)[0]) == 20.0
    assert len(keys_of("alike")) == 2


def test_keys_are_the_same_in_every_process(run_python):
    script = """
import jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.handler.native_module import op_keys
scale = 3
def g(x, mode):
    return torch.tanh(x) * scale if mode in {"a", "b", "c"} else x
f = jax_callable(g, name="stable")
jax.grad(lambda x: f(x, mode="a").sum())(jnp.ones(3))
print(op_keys())
"""
    first = run_python(script, env={"PYTHONHASHSEED": "1"})
    assert first == run_python(script, env={"PYTHONHASHSEED": "2"})
    assert "stable@0/" in first
    assert first != run_python(script.replace("tanh", "sinh"))


def test_a_program_without_its_op_says_what_to_import(tmp_path, run_python):
    export = """
import jax, jax.numpy as jnp, torch
from jax import export
from jaxtorch_bridge import jax_callable
f = jax_callable(lambda x: x * 2, name="exported")
from jaxtorch_bridge import ffi_target_names
allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
e = export.export(jax.jit(f), disabled_checks=allowed)(jnp.ones(3))
open(PATH, "wb").write(e.serialize())
"""
    load = """
import jax, jax.numpy as jnp
from jax import export
from jaxtorch_bridge import ffi_target_names, jax_callable
f = jax_callable(lambda x: x * 2, name="exported")  # not planned
assert ffi_target_names() == ("jaxtorch_bridge.call", "jaxtorch_bridge.call:exported@0")
GONE
print(export.deserialize(open(PATH, "rb").read()).call(jnp.ones(3)))
"""
    path = f"PATH = {str(tmp_path / 'program')!r}\n"
    run_python(path + export)
    assert run_python(path + load.replace("GONE", "")) == "[2. 2. 2.]\n"
    text = run_python(path + load.replace("GONE", "del f; import gc; gc.collect()"), check=False)
    assert "OpNotRegisteredError: this program calls the torch function `exported@0`" in text
    assert "Import the module that defines it" in text


@pytest.mark.parametrize("how", ["eager", "jit", "grad"])
def test_threads(how):
    """8 threads, 1,000 calls each, each with numbers of its own."""
    function = jax_callable(lambda x, y: (x * y).sin())
    if how == "grad":
        call = jax.jit(jax.grad(lambda x, y: function(x, y).sum()))
        reference = jax.jit(jax.grad(lambda x, y: jnp.sin(x * y).sum()))
    else:
        call = jax.jit(lambda x, y: function(x, y)) if how == "jit" else function
        reference = jax.jit(lambda x, y: jnp.sin(x * y))
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for step in range(1000):
                size = 3 + (number + step) % 4
                x = jnp.full(size, float(number))
                y = np.full(size, 0.001 * step, np.float32)
                if not is_close(call(x, y), reference(x, y)):
                    wrong.append((number, step))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_many_calls_do_not_grow_memory():
    function = jax_callable(lambda x: x * 2 + 1, name="steady")
    arrays = [jnp.ones((size, 64)) for size in range(1, 101)]

    def sweep(times: int) -> int:
        for _ in range(times):
            for array in arrays:
                function(array)
        gc.collect()
        return psutil.Process().memory_info().rss

    before = sweep(10)
    after = sweep(100)
    assert after - before < 8 << 20
    assert len(keys_of("steady")) == 100


def test_a_large_input_is_not_copied(run_python):
    script = """
import threading, time, psutil, jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable
f = jax.jit(jax_callable(lambda x: x.sum()))
small = jnp.ones((1 << 10, 1 << 10)); f(small).block_until_ready()
x = jnp.ones((1 << 14, 1 << 14)).block_until_ready()   # 1 GiB
f.lower(x).compile()
process, peak, stop = psutil.Process(), [0], threading.Event()
def watch():
    while not stop.is_set():
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.001)
before = process.memory_info().rss
thread = threading.Thread(target=watch); thread.start()
for _ in range(3):
    assert float(f(x)) == 2.0 ** 28
stop.set(); thread.join()
print((peak[0] - before) >> 20)
"""
    assert int(run_python(script)) < 64
