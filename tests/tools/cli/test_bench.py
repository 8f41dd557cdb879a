"""``jaxtorch bench``: every backend in turn, beside torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jaxtorch_bridge.tools.bench.rounds import timed

CODE = """
import torch

def scaled(x, w, *, power=1):
    return torch.tanh(x @ w) ** power

def branches(x):
    return x * 2 if float(x.detach().sum()) > 1e9 else x

def failing(x):
    return torch.linalg.cholesky(-x @ x.T)

def counted(i):
    return i * 2

def detached(x):
    return x.detach() * 2

def named(x):
    return {"which": x.argmax(-1), "best": x.amax(-1), "fixed": x.detach()}
"""
SPEC = """schema: jaxtorch/1
name: {name}
version: 1.0.0
function: bench_ops:{name}
inputs: {inputs}
outputs: {outputs}
{more}
"""
SCALED = {"inputs": "{x: 'float32[n, m]', w: 'float32[m, k]'}", "outputs": "{y: 'float32[n, k]'}"}
SAME = {"inputs": "{x: 'float32[n, n]'}", "outputs": "{y: 'float32[n, n]'}"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXTORCH_SPECS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("bench_ops.py").write_text(CODE)
    contracts = {
        "scaled": {**SCALED, "more": "static: {power: 1}"},
        "named": {**SCALED, "more": "static: {power: 1}\nexecution: {backend: xla}"},
        "branches": SAME,
        "failing": SAME,
        "detached": SAME,
        "several": {
            "inputs": "{x: 'float32[n, m]'}",
            # In another order than the function's.
            "outputs": "{best: 'float32[n]', fixed: 'float32[n, m]', which: 'int64[n]'}",
        },
        "counted": {"inputs": "{i: 'int32[n]'}", "outputs": "{y: 'int32[n]'}"},
    }
    for name, parts in contracts.items():
        function = {"named": "scaled", "several": "named"}.get(name, name)
        text = SPEC.format(**{"name": function, "more": "", **parts})
        Path(f"{name}.yaml").write_text(text)
    yield
    sys.modules.pop("bench_ops", None)


def rows_of(done):
    return {row["backend"]: row for row in done.json["rows"]}


@pytest.mark.usefixtures("here")
class TestBench:
    def test_as_json(self, jaxtorch):
        done = jaxtorch("bench", "scaled.yaml", "--shape", "n=3,m=4,k=5", "--seconds", 0, "--json")
        assert (done.code, done.err) == (0, "")
        rows = rows_of(done)
        assert list(rows) == ["torch", "eager", "graph", "compile", "xla"]
        assert rows["torch"]["forward"]["of_torch"] == 1.0
        for row in rows.values():
            assert "failed" not in row
            for word in ("forward", "gradient"):
                assert row[word]["median_us"] > 0
                assert row[word]["spread"] >= 0
        assert rows["xla"]["operations"] == 3
        assert rows["xla"]["islands"] == []
        assert done.json["sizes"] == {"n": 3, "m": 4, "k": 5}
        assert done.json["platform"] == "cpu"

    def test_as_a_table(self, jaxtorch):
        done = jaxtorch("bench", "scaled.yaml", "--shape", "n=3,m=4,k=5", "--seconds", 0)
        assert done.code == 0
        lines = done.out.splitlines()
        assert lines[0].startswith("scaled@1.0.0  bench_ops:scaled  n=3, m=4, k=5  on cpu")
        for name in ("torch", "eager", "graph", "compile", "xla"):
            assert any(line.startswith(name) for line in lines)
        assert "3 of 3 operations are JAX's" in done.out
        assert lines[-1].startswith(("write `execution: {backend: ", "leave the backend as it is"))

    def test_some_backends_and_another_power(self, jaxtorch):
        done = jaxtorch(
            *("bench", "named.yaml", "--shape", "n=3,m=4,k=5", "--static", "power=2"),
            *("--backends", "eager, xla", "--seconds", 0, "--json"),
        )
        assert list(rows_of(done)) == ["torch", "eager", "xla"]
        assert rows_of(done)["xla"]["operations"] == 3

    def test_what_a_backend_cannot_run(self, jaxtorch):
        done = jaxtorch(
            *("bench", "branches.yaml", "--shape", "n=3", "--backends", "eager,xla"),
            *("--seconds", 0, "--json"),
        )
        rows = rows_of(done)
        assert "PlanningError" in rows["xla"]["failed"]
        assert "forward" not in rows["xla"]
        assert rows["eager"]["forward"]["median_us"] > 0
        assert done.json["advice"].startswith("leave the backend as it is (auto)")

    def test_without_a_gradient(self, jaxtorch):
        done = jaxtorch("bench", "counted.yaml", "--shape", "n=3", "--seconds", 0, "--json")
        assert all("gradient" not in row for row in done.json["rows"])
        assert "forward" in done.json["advice"] or "write" in done.json["advice"]

    def test_a_gradient_that_torch_does_not_have(self, jaxtorch):
        done = jaxtorch("bench", "detached.yaml", "--shape", "n=3", "--seconds", 0, "--json")
        assert (done.code, done.err) == (0, "")
        assert all("gradient" not in row for row in done.json["rows"])

    def test_results_in_another_order(self, jaxtorch):
        done = jaxtorch(
            *("bench", "several.yaml", "--shape", "n=3,m=4", "--backends", "eager,xla"),
            *("--seconds", 0, "--json"),
        )
        assert all("failed" not in row and "gradient" in row for row in done.json["rows"])

    def test_a_function_that_made_up_values_do_not_fit(self, jaxtorch):
        done = jaxtorch("bench", "failing.yaml", "--shape", "n=3", "--seconds", 0)
        assert done.code == 1
        assert "expected a function that runs on made-up values" in done.err
        assert "a script of your own" in done.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--shape", "n=3,m=4"), "--shape lacks `k`"),
            (("--shape", "n=3,m=4,k=5", "--backends", "tpu"), "--backends: expected some of eager"),
        ],
    )
    def test_wrong_usage(self, jaxtorch, arguments, words):
        done = jaxtorch("bench", "scaled.yaml", *arguments)
        assert done.code == 2
        assert words in done.err


def test_rounds_take_turns():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    shares = []
    found = timed(calls, seconds=0.0, told=shares.append)
    assert set(found) == {"a", "b"}
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    # Each is warmed up and then runs in each of the rounds.
    assert min(order.count("a"), order.count("b")) >= 5
