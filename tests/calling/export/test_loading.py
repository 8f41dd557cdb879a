"""A process that has imported the functions, and planned nothing, runs programs that call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from comparing import assert_equal

HERE = Path(__file__).resolve().parent

COMMON = """
import json, sys
sys.path.insert(0, {here!r})
import jax
from jax import export
import loading_ops as ops
from jaxtorch_bridge.torchside.handler.native_module import op_keys

files = {files!r}
made = {{**ops.PROGRAMS, **ops.UNPLANNED}}
results, errors = {{}}, {{}}
"""
WRITE = """
from jaxtorch_bridge import ffi_target_names

allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
for name, (program, *arguments) in made.items():
    with jax.enable_x64(name == "x64"):
        exported = export.export(jax.jit(program), disabled_checks=allowed)(*arguments)
        results[name] = ops.run(exported.call, arguments)
    open(f"{files}/{name}", "wb").write(exported.serialize())
"""
READ = """
assert op_keys() == ()
for name in reversed(made):
    program, *arguments = made[name]
    loaded = export.deserialize(bytearray(open(f"{files}/{name}", "rb").read()))
    try:
        results[name] = ops.run(loaded.call, arguments)
    except Exception as error:
        errors[name] = str(error)
"""
TELL = """
print(json.dumps([results, errors]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What the process that exported the programs got, and what one that loads them gets."""
    files = tmp_path_factory.mktemp("programs")
    common = COMMON.format(here=str(HERE), files=str(files))

    def run(script):
        done = subprocess.run(
            [sys.executable, "-c", common + script + TELL],
            cwd=HERE.parents[2],
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    written, errors = run(WRITE)
    assert errors == {}
    return written, *run(READ)


# Not a test for each: their names stand in a file that is imported by processes of its own.
def test_loaded_programs_give_what_the_exported_ones_did(runs):
    written, loaded, errors = runs
    assert {name: words for name, words in errors.items() if name not in WORDS} == {}
    assert loaded.keys() | WORDS.keys() == written.keys()
    for name, results in loaded.items():
        for one, other in zip(results, written[name], strict=True):
            assert_equal(one, other, label=name)


WORDS = {
    "unknown": (
        "it says that there is none: `loading_ops.Unknown` is no pytree",
        "call the function once",
    ),
    "static function": (
        "a value is of the class `builtins.builtin_function",
        "call the function once",
    ),
    "looks": ("cannot be found without running it", "call it once with arguments float32[3]"),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_cannot_be_planned_without_a_call_says_so(runs, name):
    _, _, errors = runs
    assert "ExportError: this program was exported and calls the torch function" in errors[name]
    for words in WORDS[name]:
        assert words in errors[name]
