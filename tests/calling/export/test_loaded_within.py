"""A torch function that has a program of itself compiled while it is planned, or runs."""

import subprocess
import sys
from pathlib import Path

import pytest

LAYER = """
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import export

from jaxtorch_bridge import ffi_target_names, jax_callable
from jaxtorch_bridge.calling import loaded_calls

loaded_calls._STANDSTILL_SECONDS = 0.2
norm = torch.nn.BatchNorm1d(3)
action = sys.argv[1]


def inside(x):
    if len(x) == 4 and float(x.sum()) > -1e9:
        program = export.deserialize(bytearray(pathlib.Path("program.bin").read_bytes()))
        return norm(x) + float(np.asarray(program.call(jnp.ones((2, 3)))).sum())
    return norm(x)


contract = {
    "schema": "jaxtorch/1",
    "name": "inside",
    "version": "1.0.0",
    "inputs": {"x": "float32[n, m]"},
    "outputs": {"y": "float32[n, m]"},
}
f = jax_callable(inside, spec=contract if "contract" in sys.argv else None, name="inside")
if action == "write":
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    program = export.export(jax.jit(f), disabled_checks=allowed)(jnp.ones((2, 3)))
    pathlib.Path("program.bin").write_bytes(program.serialize())
elif action == "planned":
    f(jnp.ones((2, 3)))
    print(f(jnp.ones((4, 3))).shape)
else:
    try:
        print(jax.block_until_ready((jax.jit(f) if action == "jit" else f)(jnp.ones((4, 3)))).shape)
    except Exception as error:
        print(error)
    print(f(jnp.ones((3, 3))).shape)
"""


@pytest.mark.parametrize("how", ["contract", "none"])
def test_it_is_an_error_and_not_a_wait_for_ever(tmp_path, how):
    Path(tmp_path, "layer.py").write_text(LAYER)

    def run(action):
        command = [sys.executable, "layer.py", action, how]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("write")
    for action in ("eager", "jit"):
        words = run(action)
        assert "A torch function that has the program compiled" in " ".join(words.split()), words
        assert words.splitlines()[-1] == "(3, 3)"  # the next call works
    assert run("planned").split("\n")[0] == "(4, 3)"
