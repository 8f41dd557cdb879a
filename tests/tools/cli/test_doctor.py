from __future__ import annotations

import json
import sys

import pytest

from jaxtorch_bridge.tools.doctor import examine as module
from jaxtorch_bridge.tools.doctor.checks import problem

SUBJECTS = ["versions", "devices", "memory", "handler", "libraries", "threads", "tapes"]


def test_here(jaxtorch):
    done = jaxtorch("doctor", "--json")
    checks = done.json["checks"]
    assert list(dict.fromkeys(one["subject"] for one in checks))[: len(SUBJECTS)] == SUBJECTS
    # The versions may be others than the tested ones; all else is right where tests run.
    problems = [one for one in checks if one["state"] == "problem"]
    assert [one for one in problems if one["subject"] != "versions"] == []
    assert done.code == (1 if problems else 0)
    assert any("gives what it should" in one["text"] for one in checks)
    tapes = next(one["text"] for one in checks if one["subject"] == "tapes")
    assert tapes.startswith("cpu: ")
    assert tapes.endswith("MiB (its share, as settings.tape_bytes is None)")
    assert all(one["remedy"] for one in problems)


def test_problems_come_with_what_to_do(jaxtorch, monkeypatch):
    def odd():
        yield problem("devices", "one is missing", "Add one")
        raise RuntimeError("and then this")

    monkeypatch.setattr(module, "_SUBJECTS", (("devices", odd),))
    done = jaxtorch("doctor")
    assert done.code == 1
    assert "problem  devices    one is missing\n                    -> Add one\n" in done.out
    assert "cannot be looked at: RuntimeError: and then this" in done.out
    assert done.out.endswith("problems\n")


@pytest.mark.parametrize("missing", ["jax", "torch"])
def test_what_cannot_be_imported(jaxtorch, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    done = jaxtorch("doctor")
    assert done.code == 1
    assert f"{missing} cannot be imported" in done.out
    assert f"pip install --force-reinstall {missing}" in done.out


def test_without_the_native_module(run_python):
    script = (
        "import sys; sys.argv = ['jaxtorch', 'doctor', '--json']\n"
        "sys.modules['jaxtorch_bridge._native'] = None\n"
        "from jaxtorch_bridge.tools.cli import main\n"
        "main()\n"
    )
    found = json.loads(run_python(script, check=False))
    (one,) = [one for one in found["checks"] if one["subject"] == "handler"]
    assert one["state"] == "problem"
    assert "native module is missing" in one["text"]
    assert "make setup" in one["remedy"]
