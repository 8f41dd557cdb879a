"""Which function is imported, and what is said where that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CONTRACT = "inputs:\n  x: float32[n]\noutputs:\n  y: float32[n]\n"
GOOD = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    ("code", "function", "found"),
    [
        ("import not_there\n" + GOOD, "f", "No module named 'not_there' ("),
        ("raise ValueError('no licence')\n" + GOOD, "f", "ValueError: no licence"),
        ("raise SystemExit(3)\n" + GOOD, "f", "SystemExit: 3"),
        ("def f(x:\n", "f", "SyntaxError"),
        (GOOD, "g", "no `g` there"),
        (GOOD, "f.g", "no `g` there"),
        ("f = 3\n", "f", "int"),
        ("class f(torch.nn.Module):\n    pass\n", "f", "the class `f`"),
        ("class A:\n    def f(self, x):\n        return x\n", "A.f", "a method"),
    ],
)
def test_a_function_that_cannot_be_had(proof_of, code, function, found):
    proof = proof_of(code, CONTRACT, function)
    (problem,) = proof.problems
    assert (problem.line, problem.column, problem.path) == (4, 11, "function")
    assert found in problem.found
    assert proof.calls == 0


def test_a_module_that_is_not_there(proof_of):
    file = Path("alone.yaml")
    proof_of(GOOD, CONTRACT)
    file.write_text(f"schema: jaxtorch/1\nname: f\nversion: 1.0.0\nfunction: no.such:f\n{CONTRACT}")
    from jaxtorch_bridge.spec.files.load import load_spec
    from jaxtorch_bridge.tools.check.compare_function import prove

    (problem,) = prove(load_spec(file)).problems
    assert problem.expected == "a module `no.such` that can be imported"
    assert problem.found.startswith("no module `no`; is its folder the current one")


@pytest.mark.parametrize("target", ["shutil:rmtree", "os:system", "subprocess:run", "os.path:join"])
def test_python_itself_is_never_called(tmp_path, target):
    from jaxtorch_bridge.spec.files.load import load_spec
    from jaxtorch_bridge.tools.check.compare_function import prove

    victim = tmp_path / "victim"
    victim.mkdir()
    spec = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "function": target,
        "inputs": {},
        "static": {"path": str(victim)},
        "outputs": {"y": "float32[]"},
    }
    (problem,) = prove(load_spec(spec)).problems
    assert "Python's own library" in problem.found
    assert victim.is_dir()


def test_only_the_module_under_function_is_imported(write, monkeypatch):
    from jaxtorch_bridge.tools.check.check_files import check_contracts

    file = write(GOOD, CONTRACT + "doc: os_like:remove\n")
    module = file.stem
    Path("bystander.py").write_text("raise AssertionError('imported')\n")
    Path("free.yaml").write_text(
        "schema: jaxtorch/1\nname: bystander\nversion: 1.0.0\n"
        "doc: bystander:f\ninputs: {bystander: 'float32[]'}\noutputs: {y: 'float32[]'}\n"
    )
    before = set(sys.modules)
    checked = check_contracts([str(file), "free.yaml"])
    assert checked.all_problems == ()
    assert checked.without_function == ("bystander@1.0.0",)
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert module in new
    assert "bystander" not in new


@pytest.mark.parametrize(
    ("code", "contract", "place", "expected", "found"),
    [
        ("def f(z):\n    return z\n", CONTRACT, (6, "inputs.x"), "parameters `z`", "`x`"),
        (
            "def f(x, scale):\n    return x\n",
            CONTRACT,
            (6, "inputs"),
            "the function's parameter `scale`",
            "no input of that name",
        ),
        (
            GOOD,
            CONTRACT + "static: {causal: false}\n",
            (9, "static.causal"),
            "parameters `x`",
            "`causal`",
        ),
        (
            "def f(x, *, causal=True):\n    return x\n",
            CONTRACT + "static: {causal: false}\n",
            (9, "static.causal"),
            "default True",
            "False",
        ),
        (
            "def f(k, q):\n    return q - k\n",
            "inputs:\n  q: float32[n]\n  k: float32[n]\noutputs:\n  y: float32[n]\n",
            (6, "inputs"),
            "in the order of the function's parameters, `k`, `q`",
            "`q`, `k`",
        ),
    ],
    ids=["input", "parameter", "static", "default", "order"],
)
def test_parameters_that_the_contract_does_not_know(
    proof_of, code, contract, place, expected, found
):
    problem = proof_of(code, contract).problems[0]
    assert (problem.line, problem.path) == place
    assert expected in problem.expected
    assert found in problem.found


def test_what_a_module_prints_is_no_output_of_the_command(proof_of, capsys):
    proof = proof_of("print('loading')\ndef f(x):\n    print('called')\n    return x\n", CONTRACT)
    assert proof.problems == []
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "loading" in printed.err
