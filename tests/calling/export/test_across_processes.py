"""The persistent compilation cache and exported programs, with the functions changed in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comparing import assert_close

# Two versions of one module: the numbers in braces are all that differs.
OPS = """
import functools
import torch
from jaxtorch_bridge import jax_callable

SCALE = {number}.0
offset = torch.tensor({number}.0)


def helper(x):
    return x * {number}


class Scaler:
    def __init__(self):
        self.power = 2

    def shift(self, x):
        return x + {number}

    def call(self, x):
        return self.shift(x)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = {number}.0

    def forward(self, x):
        return (x * self.gain).sin()


def closing(number):
    return lambda x: x * number


scaler = Scaler()
FUNCTIONS = {{
    "source": jax_callable(lambda x: x * x + {number}, name="source"),
    "default": jax_callable(lambda x, by={number}: x * by, name="default"),
    "closure": jax_callable(closing({number}), name="closure"),
    "global": jax_callable(lambda x: x * SCALE, name="global"),
    "tensor": jax_callable(lambda x: x * offset, name="tensor"),
    "helper": jax_callable(lambda x: helper(x), name="helper"),
    "method": jax_callable(scaler.call, name="method"),
    "object": jax_callable(lambda x: scaler.call(x), name="object"),
    "module": jax_callable(Block(), name="module"),
    "partial": jax_callable(functools.partial(lambda by, x: x * by, {number}), name="partial"),
}}
"""
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
sys.path.insert(0, {folder!r})
jax.config.update("jax_compilation_cache_dir", {cache!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
from jax import export
from ops import FUNCTIONS
from jaxtorch_bridge import ffi_target_names
from jaxtorch_bridge.torchside.handler.native_module import op_keys

x = jnp.arange(3.0) + 1
found = {{}}
alive = []
for name, f in FUNCTIONS.items():
    gradient = jax.jit(jax.grad(lambda x, f=f: f(x).sum()))
    batch = jax.jit(jax.vmap(f))
    alive += [gradient, batch]
    found[name] = [f(x), jax.jit(f)(x), gradient(x), batch(jnp.stack([x, x]))[1]]
found = {{name: [one.tolist() for one in values] for name, values in found.items()}}
keys = list(op_keys())
hits = sum(name.endswith("/cache_hits") for name in events)
misses = sum(name.endswith("/cache_misses") for name in events)
allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
errors, loaded = {{}}, {{}}
for name, f in FUNCTIONS.items():
    for kind, program in (("call", f), ("grad", jax.grad(lambda x, f=f: f(x).sum()))):
        path = {files!r} + f"/{{name}}.{{kind}}"
        if {write}:
            made = export.export(jax.jit(program), disabled_checks=allowed)(x)
            open(path, "wb").write(made.serialize())
            continue
        try:
            result = export.deserialize(bytearray(open(path, "rb").read())).call(x)
            loaded[f"{{name}}.{{kind}}"] = result.tolist()
        except Exception as error:
            errors[f"{{name}}.{{kind}}"] = str(error)
print(json.dumps(dict(found=found, keys=keys, hits=hits, misses=misses, errors=errors,
                      loaded=loaded)))
"""
NAMES = (
    *("source", "default", "closure", "global", "tensor"),
    *("helper", "method", "object", "module", "partial"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same program three times: twice with the same functions, then with others."""
    import os
    import subprocess
    import sys

    root = tmp_path_factory.mktemp("export")
    cache, files = root / "cache", root / "files"
    files.mkdir()

    def run(number: int, seed: int, write: bool = False) -> dict:
        folder = root / f"{number}-{seed}"
        folder.mkdir()
        (folder / "ops.py").write_text(OPS.format(number=number))
        paths = {"folder": str(folder), "cache": str(cache), "files": str(files)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(**paths, write=write)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=Path(__file__).resolve().parents[3],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return {"first": run(3, 1, write=True), "same": run(3, 2), "changed": run(5, 3), "files": files}


def test_keys_are_the_same_in_every_process(runs):
    assert len(runs["first"]["keys"]) > 30
    assert runs["first"]["keys"] == runs["same"]["keys"]


def test_a_second_process_finds_the_programs_of_the_first(runs):
    assert runs["first"]["misses"] > 0
    assert runs["same"]["misses"] == 0
    assert runs["same"]["hits"] > 30
    assert runs["same"]["found"] == runs["first"]["found"]


@pytest.mark.parametrize("name", NAMES)
def test_no_key_survives_a_change(runs, name):
    def keys(run):
        return {key for key in runs[run]["keys"] if key.startswith(f"{name}@")}

    assert keys("first")
    assert not keys("first") & keys("changed")


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_never_gives_another_functions_result(runs, name):
    eager, jitted, gradient, batch = runs["changed"]["found"][name]
    x, by = [1.0, 2.0, 3.0], 5.0
    if name == "module":
        import math

        wanted = [math.sin(by * one) for one in x]
        slopes = [by * math.cos(by * one) for one in x]
    else:
        wanted = {
            "source": [one * one + by for one in x],
            "method": [one + by for one in x],
            "object": [one + by for one in x],
        }.get(name, [one * by for one in x])
        slopes = {
            "source": [2 * one for one in x],
            "method": [1.0] * 3,
            "object": [1.0] * 3,
        }.get(name, [by] * 3)
    for found in (eager, jitted, batch):
        assert_close(found, wanted)
    assert_close(gradient, slopes)


@pytest.mark.parametrize("name", NAMES)
def test_exported_programs_run_in_another_process(runs, name):
    assert runs["same"]["errors"] == {}
    eager, _, gradient, _ = runs["first"]["found"][name]
    assert runs["same"]["loaded"][f"{name}.call"] == eager
    assert runs["same"]["loaded"][f"{name}.grad"] == gradient


@pytest.mark.parametrize("name", NAMES)
def test_exported_programs_do_not_call_a_function_that_changed(runs, name):
    assert runs["changed"]["loaded"] == {}
    text = runs["changed"]["errors"][f"{name}.call"]
    called = f"this program was exported and calls the torch function `{name}@0`"
    assert f"ExportError: {called}" in text
    assert "the code is another one" in text
    assert "Import the version of its module that the program was made with" in text
    assert f"`{name}@0`" in runs["changed"]["errors"][f"{name}.grad"]


def test_a_process_without_the_library_gets_an_error_with_the_name(runs, run_python):
    text = run_python(
        f"""
import jax.numpy as jnp
from jax import export
program = export.deserialize(bytearray(open({str(runs["files"] / "helper.call")!r}, "rb").read()))
import sys
assert not any(name.startswith(("jaxtorch_bridge", "torch", "ops")) for name in sys.modules)
program.call(jnp.ones(3))
""",
        check=False,
    )
    assert "jaxtorch_bridge.call:helper@0" in text
