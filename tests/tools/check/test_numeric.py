"""What only real runs can show."""

from __future__ import annotations

import json
import math

import pytest

from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.tools.check.compare_function import prove
from jaxtorch_bridge.tools.check.gradients import slopes_of

ONE = "inputs:\n  x: float32[n, m]\noutputs:\n  y: float32[n, m]\n"
CUSTOM = (
    "class S(torch.autograd.Function):\n"
    "    @staticmethod\n    def forward(x):\n        return x.sin()\n"
    "    @staticmethod\n    def setup_context(ctx, inputs, output):\n"
    "        ctx.save_for_backward(*inputs)\n"
    "    @staticmethod\n    def backward(ctx, g):\n"
    "        return {factor} * g * ctx.saved_tensors[0].cos()\n"
    "    generate_vmap_rule = True\n"
    "def f(x):\n    return S.apply(x)\n"
)


def words(proof):
    return [text for name, text in proof.remarks if name == "numeric"]


@pytest.mark.parametrize(
    ("code", "contract"),
    [
        ("def f(x):\n    return x.sin()\n", ONE),
        (CUSTOM.replace("{factor}", "1"), ONE),
        (
            "def f(x, w, labels, *, mean=False):\n"
            "    y = torch.nn.functional.cross_entropy(x @ w, labels, reduction='none')\n"
            "    return y.mean()[None].expand(len(y)) if mean else y\n",
            "inputs:\n  x: float32[n, m]\n  w: float32[m, k]\n  labels: int64[n]\n"
            "static: {mean: false}\noutputs: {y: 'float32[n]'}\n",
        ),
        (
            "def f(x):\n    return x * x.conj().sum()\n",
            "inputs: {x: 'complex64[n]'}\noutputs: {y: 'complex64[n]'}\n",
        ),
        (
            "def f(x, b):\n    return x.exp() * b.sum()\n",
            "inputs: {x: 'bfloat16[n]', b: 'float64[m]'}\noutputs: {y: 'bfloat16[n]'}\n",
        ),
    ],
    ids=["sin", "own backward", "labels", "complex", "narrow and wide"],
)
def test_right_functions(proof_of, code, contract):
    proof = proof_of(code, contract, numeric=True)
    assert proof.problems == []
    assert words(proof)[0] == "values are those of torch"
    assert words(proof)[1].startswith("gradients are those of torch")
    assert words(proof)[2] == "batches give what single calls give"


def test_a_wrong_backward_is_found_by_finite_differences(proof_of):
    (problem,) = proof_of(CUSTOM.replace("{factor}", "2"), ONE, numeric=True).problems
    assert (problem.line, problem.path) == (6, "inputs.x")
    assert problem.expected == "the slope of the function"
    assert "where finite differences give" in problem.found
    quiet = ONE.replace(
        "float32[n, m]\nout", "{shape: '[n, m]', dtype: float32, differentiable: false}\nout"
    )
    assert proof_of(CUSTOM.replace("{factor}", "2"), quiet, numeric=True).problems == []


def test_a_detached_way_is_found(proof_of):
    code = "def f(x):\n    return x.sin() + x.detach() ** 2\n"
    (problem,) = proof_of(code, ONE, numeric=True).problems
    assert (problem.line, problem.path) == (6, "inputs.x")
    assert "detaches" in problem.found


def test_kinks_are_not_taken_for_wrong_gradients(proof_of):
    code = "def f(x):\n    return torch.where(x > 0, x, -x).relu().round(decimals=1)\n"
    contract = ONE + "vjp_depth: 0\n"
    assert proof_of(code, contract, numeric=True).problems == []
    code = "def f(x):\n    return (x.abs() - 0.5).abs()\n"
    assert proof_of(code, ONE, numeric=True).problems == []


def test_a_false_claim_about_batches(proof_of):
    code = "def f(x):\n    return x.softmax(0)\n"
    contract = ONE + "vmap_method: broadcast_all\n"
    assert proof_of(code, contract).problems == []
    (problem,) = proof_of(code, contract, numeric=True).problems
    assert (problem.line, problem.path) == (9, "vmap_method")
    assert "differs from a single call" in problem.found


def test_what_a_fake_accepts_and_torch_does_not(proof_of):
    code = "W = torch.eye(3, dtype=torch.float64)\ndef f(x):\n    return (x @ W).float()\n"
    contract = "inputs: {x: 'float32[n, 3]'}\noutputs: {y: 'float32[n, 3]'}\n"
    (problem,) = proof_of(code, contract, numeric=True).problems
    assert (problem.line, problem.path) == (4, "function")
    assert "to have the same dtype" in problem.found


@pytest.mark.parametrize(
    ("function", "smooth", "slope"),
    [
        (lambda t: 3 * t, True, 3.0),
        (lambda t: t + 5 * t * t, True, 1.0),
        (lambda t: 2 * abs(t) + 5 * t, False, None),
        (lambda t: 2 * abs(t - 0.001) + t, False, None),
        (lambda t: 2 * abs(t - 0.005) + t, False, None),
        (lambda t: 2 * abs(t + 0.009) + t, False, None),
        (lambda t: 2 * abs(t + 0.03) + t, True, 3.0),
        (lambda t: math.inf, False, None),
    ],
)
def test_slopes_at_kinks_are_not_compared(function, smooth, slope):
    slopes = slopes_of({steps: function(steps * 0.01) for steps in (-2, -1, 0, 1, 2)}, 1.0)
    assert slopes.is_smooth == smooth
    if slope is not None:
        assert not slopes.differ_from(slope)
        assert slopes.differ_from(slope / 2)


def test_a_network_with_kinks_agrees(write):
    # With these made-up arrays a unit of the first layer is almost at its kink.
    code = (
        "def f(x, params):\n    for layer in params['layers']:\n"
        "        x = torch.relu(x @ layer['w'] + layer['b'])\n    return x @ params['head']\n"
    )
    contract = (
        "inputs:\n  x: float32[batch, n]\n  params:\n    layers:\n"
        "      - {w: 'float32[n, m]', b: 'float32[m]'}\n"
        "      - {w: 'float32[m, m]', b: 'float32[m]'}\n    head: float32[m, classes]\n"
        "outputs: {logits: 'float32[batch, classes]'}\nvjp_depth: 1\n"
    )
    file = write(code, contract)
    file.write_text(file.read_text().replace("name: f", "name: mlp"))
    assert prove(load_spec(file), numeric=True).problems == []


def test_random_functions_are_not_compared(proof_of):
    code = "def f(x):\n    return x + torch.rand_like(x)\n"
    proof = proof_of(code, ONE + "random: key\n", numeric=True)
    assert proof.problems == []
    assert proof.runs
    assert words(proof) == ["draws random numbers, so values are not compared"]


def test_functions_that_fail_on_some_sizes_only_when_they_run(proof_of):
    code = (
        "def f(x):\n    total = float(x.detach().sum())\n"
        "    return x[: -1] if len(x) == 1 else x + 0 * total\n"
    )
    (problem,) = proof_of(code, ONE + "vjp_depth: 0\n", numeric=True).problems
    assert (problem.line, problem.path) == (4, "function")
    assert "planned float32[1, " in problem.found


def test_shards_that_are_not_independent(run_python, tmp_path):
    (tmp_path / "parts.py").write_text(
        "def good(x):\n    return x + 1\n\ndef bad(x):\n    return x - x.mean(0)\n"
    )
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(
            f"schema: jaxtorch/1\nname: {name}\nversion: 1.0.0\nfunction: parts:{name}\n"
            + ONE
            + "sharding: {n: data}\n"
        )
    script = (
        f"import sys, os; os.chdir({str(tmp_path)!r})\n"
        "sys.argv = ['jaxtorch', 'check', '--numeric', '--json', 'good.yaml', 'bad.yaml']\n"
        "from jaxtorch_bridge.tools.cli import main\n"
        "main()\n"
    )
    found = json.loads(run_python(script, check=False))
    (problem,) = found["problems"]
    assert (problem["file"], problem["line"]) == ("bad.yaml", 9)
    assert problem["path"] == "sharding"
    assert "Shards are not independent" in problem["found"]
    good = found["contracts"][0]["remarks"]
    assert {
        "subject": "numeric",
        "words": "shards on 2 devices give what whole arrays give",
    } in good
