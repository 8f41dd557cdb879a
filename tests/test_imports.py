"""Importing is quiet and cheap, and nothing compiles."""

from __future__ import annotations

import jaxtorch_bridge


def test_importing_the_package_loads_neither_jax_nor_torch(run_python):
    script = """
import sys, jaxtorch_bridge
print(sorted({"jax", "torch", "numpy", "pydantic"} & set(sys.modules)))
"""
    assert run_python(script).strip() == "[]"


def test_importing_the_decorator_starts_no_compiler_and_no_backend(run_python):
    script = """
import subprocess, os, jax, torch
def forbidden(*args, **kwargs): raise AssertionError("a process was started")
subprocess.Popen = os.system = forbidden
from jaxtorch_bridge import jax_callable
import jax._src.xla_bridge as bridge
print(bridge.backends_are_initialized())
"""
    assert run_python(script).strip() == "False"


def test_every_public_name_can_be_had():
    for name in jaxtorch_bridge.__all__:
        assert getattr(jaxtorch_bridge, name) is not None
    assert set(jaxtorch_bridge.__all__) <= set(dir(jaxtorch_bridge))


def test_a_name_that_does_not_exist():
    assert not hasattr(jaxtorch_bridge, "nothing")


def test_without_the_native_module_the_message_says_what_to_do(run_python):
    script = """
import sys
sys.modules["jaxtorch_bridge._native"] = None
import jax.numpy as jnp
from jaxtorch_bridge import jax_callable
jax_callable(lambda x: x)(jnp.ones(2))
"""
    text = run_python(script, check=False)
    assert "ImportError: jaxtorch_bridge's native module is missing" in text
    assert "make setup" in text
