"""Right contracts agree; each wrong one is told with its line, what was expected and what came."""

from __future__ import annotations

import pytest

LINEAR = "def f(x, w):\n    return x @ w\n"
LINEAR_SPEC = "inputs:\n  x: float32[n, m]\n  w: float32[m, k]\noutputs:\n  y: float32[n, k]\n"


def places(proof):
    return [(one.line, one.path) for one in proof.problems]


@pytest.mark.parametrize(
    ("code", "contract"),
    [
        (LINEAR, LINEAR_SPEC),
        (
            "def f(x, shift=None, *, causal=False, power=2):\n"
            "    y = x**power\n"
            "    y = y if shift is None else y + shift\n"
            "    return y.cumsum(-1) if causal else y\n",
            "inputs:\n  x: float32[..., n]\n"
            "  shift: {shape: '[n]', dtype: float32, optional: true}\n"
            "static: {causal: false, power: 2}\noutputs: {y: 'float32[..., n]'}\n",
        ),
        (
            "def f(x, heads):\n    return x.reshape(len(x), len(heads), -1) * heads[:, None]\n",
            "inputs:\n  x: float32[n, dim]\n  heads: float32[heads]\n"
            "outputs: {y: 'float32[n, heads, dim//heads]'}\nconstraints: [dim % heads == 0]\n",
        ),
        (
            "from typing import NamedTuple\nclass P(NamedTuple):\n"
            "    w: torch.Tensor\n    b: torch.Tensor\n"
            "def f(x, p: P):\n    return {'y': x @ p.w + p.b, 'n': torch.tensor(len(x))}\n",
            "inputs:\n  x: float32[n, m]\n  p:\n    w: float32[m, k]\n    b: float32[k]\n"
            "outputs: {y: 'float32[n, k]', n: 'int64[]'}\n",
        ),
        (
            "def f(*, size=3):\n    return torch.zeros(size)\n",
            "inputs: {}\nstatic: {size: 3}\noutputs: {y: 'float32[n]'}\n",
        ),
        (
            "f = torch.nn.Linear(4, 5)\n",
            "inputs: {input: 'float32[n, 4]'}\noutputs: {y: 'float32[n, 5]'}\n",
        ),
        (
            "def f(x):\n    return x.mean(0)\n",
            "inputs: {x: 'float64[n, m]'}\noutputs: {y: 'float64[m]'}\n",
        ),
    ],
    ids=["linear", "optional", "constraint", "groups", "no inputs", "module", "float64"],
)
def test_right_contracts_agree(proof_of, code, contract):
    proof = proof_of(code, contract)
    assert proof.problems == []
    assert proof.unseen == ""
    assert proof.calls >= 1


@pytest.mark.parametrize(
    ("code", "outputs", "place", "expected", "found"),
    [
        ("return x @ w", "float32[k, n]", (9, "outputs.y"), "dimension `k` (axis 0) to be 5", "2"),
        ("return (x @ w).T", "float32[n, k]", (9, "outputs.y"), "dimension `n` (axis 0) to", "5"),
        ("return (x @ w).sum(0)", "float32[n, k]", (9, "outputs.y"), "rank 2", "rank 1"),
        ("return x @ w", "bfloat16[n, k]", (9, "outputs.y"), "dtype bfloat16", "float32"),
        ("return (x @ w).double()", "float32[n, k]", (9, "outputs.y"), "dtype float32", "float64"),
        ("return x @ w, w", "float32[n, k]", (9, "outputs"), "1 (`y`)", "2 arrays"),
        ("return {'z': x @ w}", "float32[n, k]", (9, "outputs"), "the names y", "z from torch"),
        ("return (x @ w)[1:]", "float32[n, k]", (9, "outputs.y"), "to be 2, set by `x`", "1"),
        ("return (x @ w)[1:]", "float32[n-2, k]", (9, "outputs.y"), "`n-2` (axis 0) to be 1", "2"),
        ("x += 1; return x @ w", "float32[n, k]", (4, "function"), "called from JAX", "`x`"),
        ("return 3", "float32[n, k]", (4, "function"), "called from JAX", "got int"),
    ],
)
def test_wrong_outputs(proof_of, code, outputs, place, expected, found):
    spec = LINEAR_SPEC.replace("float32[n, k]", outputs)
    proof = proof_of(f"def f(x, w):\n    {code}\n", spec)
    (problem,) = proof.problems
    assert problem.file.startswith("ops_")
    assert (problem.line, problem.path) == place
    assert expected in problem.expected
    assert found in problem.found
    assert "with n=" in problem.found


def test_equal_sizes_do_not_hide_a_swap(proof_of):
    code = "def f(x):\n    return x.transpose(0, 1)\n"
    proof = proof_of(code, "inputs: {x: 'float32[a, b]'}\noutputs: {y: 'float32[a, b]'}\n")
    assert places(proof) == [(6, "outputs.y")]


def test_what_only_some_sizes_show(proof_of):
    # Equal to the contract at every size but 1.
    code = "def f(x):\n    return x.squeeze(0)\n"
    proof = proof_of(code, "inputs: {x: 'float32[n, m]'}\noutputs: {y: 'float32[n, m]'}\n")
    (problem,) = proof.problems
    assert (problem.line, problem.expected) == (6, "rank 2 for `[n, m]`")
    assert "with n=1, m=" in problem.found


def test_a_static_choice_that_gives_something_else(proof_of):
    code = "def f(x, *, keep=True):\n    return x.sum(0, keepdim=keep)\n"
    contract = "inputs: {x: 'float32[n, m]'}\nstatic: {keep: true}\n"
    proof = proof_of(code, contract + "outputs: {y: 'float32[1, m]'}\n")
    (problem,) = proof.problems
    assert (problem.line, problem.path) == (7, "outputs.y")
    assert "keep=False" in problem.found


def test_an_optional_input_that_is_needed(proof_of):
    code = "def f(x, shift=None):\n    return x + shift\n"
    proof = proof_of(
        code,
        "inputs:\n  x: float32[n]\n  shift: {shape: '[n]', dtype: float32, optional: true}\n"
        "outputs: {y: 'float32[n]'}\n",
    )
    (problem,) = proof.problems
    assert (problem.line, problem.path) == (7, "inputs.shift")
    assert "TypeError" in problem.found
    assert "without shift" in problem.found


def test_sizes_that_are_too_small_lead_to_a_constraint(proof_of):
    code = "def f(x):\n    return torch.nn.functional.avg_pool1d(x, 3, 1)\n"
    contract = "inputs:\n  x: float32[n, c, width]\noutputs:\n  y: float32[n, c, width-2]\n"
    assert proof_of(code, contract).problems == []  # the output's arithmetic says so already
    contract = contract.replace("width-2", "w")
    (problem,) = proof_of(code, contract).problems
    assert (problem.line, problem.path) == (6, "inputs.x")
    assert "put `width >= 3` under `constraints`" in problem.found
    assert proof_of(code, contract + "constraints: [width >= 3]\n").problems == []


def test_a_constraint_that_is_not_written_down(proof_of):
    code = "def f(x):\n    return x.reshape(len(x), 4, -1)\n"
    contract = "inputs: {x: 'float32[n, dim]'}\noutputs: {y: 'float32[n, 4, k]'}\n"
    problem = proof_of(code, contract).problems[0]
    assert (problem.line, problem.path) == (4, "function")
    assert "it works with n=8, dim=16" in problem.found
    assert "under `constraints`" in problem.found
    assert proof_of(code, contract + "constraints: [dim % 4 == 0]\n").problems == []


def test_constraints_that_no_sizes_meet(proof_of):
    code = "def f(x):\n    return x\n"
    contract = "inputs: {x: 'float32[n]'}\noutputs: {y: 'float32[n]'}\nconstraints: [n < n]\n"
    proof = proof_of(code, contract)
    assert places(proof) == [(7, "constraints")]
    assert proof.calls == 0


def test_with_64_bit_dtypes_off(proof_of):
    code = "def f(x):\n    assert x.dtype is torch.float64\n    return x\n"
    contract = "inputs: {x: 'float64[n, 3]'}\noutputs: {y: 'float64[n, 3]'}\n"
    (problem,) = proof_of(code, contract).problems
    assert (problem.line, problem.path) == (5, "inputs")
    assert "AssertionError" in problem.found
    assert "while jax_enable_x64 is off" in problem.found


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(x):\n    return x * 2 if float(x.detach().norm()) > 1 else x\n", "DataDependent"),
        ("def f(x):\n    return torch.from_numpy(x.detach().numpy() * 2)\n", "RuntimeError"),
    ],
    ids=["branches", "numpy"],
)
def test_functions_that_look_at_values_are_not_proven_until_they_run(proof_of, code, words):
    contract = "inputs: {x: 'float32[n]'}\noutputs: {y: 'float32[n]'}\nvjp_depth: 0\n"
    proof = proof_of(code, contract)
    assert places(proof) == [(4, "function")]
    assert words in proof.unseen
    assert "--numeric" in proof.problems[0].found
    proof = proof_of(code, contract, numeric=True)
    assert proof.problems == []
    assert proof.runs >= 3
    wrong = contract.replace("y: 'float32[n]'", "y: 'float32[n, 1]'")
    assert proof_of(code, wrong, numeric=True).problems


SELECTS = "def f(x):\n    return x[x > 0], torch.nonzero(x > 0)[:, 0]\n"


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        ("{y: 'float32[k<=n]', at: 'int64[k]', count: 'int32[]'}", None),
        ("{y: 'float32[k<=n]', at: 'int64[k, 1]', count: 'int32[]'}", "rank 1"),
        ("{y: 'float32[k<=n]', at: 'float32[k]'}", "int64"),
        ("{y: 'float32[k<=n]', count: 'int32[]'}", "2 arrays"),
    ],
    ids=["right", "rank", "dtype", "number"],
)
def test_results_with_a_bound(proof_of, outputs, found):
    contract = f"inputs: {{x: 'float32[n]'}}\noutputs: {outputs}\nvmap_method: sequential\n"
    proof = proof_of(SELECTS, contract, numeric=True)
    if found is None:
        assert proof.problems == []
        assert ("numeric", "values are those of torch") in proof.remarks
    else:
        assert found in proof.problems[0].found


def test_older_and_newer_contracts_of_a_decorated_function(proof_of):
    code = (
        "from jaxtorch_bridge import jax_callable\n"
        "@jax_callable(spec={'schema': 'jaxtorch/1', 'name': 'f', 'version': '1.0.0',\n"
        "    'inputs': {'x': 'float32[n]'}, 'outputs': {'y': 'float32[n]'}})\n"
        "def f(x):\n    return x + 1\n"
    )
    contract = "inputs: {x: 'float32[n]'}\noutputs: {y: 'float32[n]'}\n"
    assert proof_of(code, contract).problems == []
    assert proof_of(code, contract + "doc: another\n").problems == []
    (problem,) = proof_of(code, contract + "vjp_depth: 2\n").problems
    assert (problem.line, problem.path) == (3, "version")
    assert "another content of f@1.0.0" in problem.found


UNION = "inputs:\n  x: float32|bfloat16[n]\n  w: like x[n]\noutputs:\n  y: like x[n]\n"


def test_every_dtype_of_a_union_is_tried(proof_of):
    assert proof_of("def f(x, w):\n    return x * w\n", UNION).problems == []
    code = "def f(x, w):\n    return (x * w).float()\n"
    (problem,) = proof_of(code, UNION).problems
    assert (problem.line, problem.path) == (9, "outputs.y")
    assert problem.expected == "dtype bfloat16, that of `x`"
    assert "x bfloat16" in problem.found
    code = "def f(x, w):\n    assert x.dtype is torch.float32\n    return x * w\n"
    (problem,) = proof_of(code, UNION).problems
    assert (problem.line, problem.path) == (6, "inputs.x")
    assert "AssertionError" in problem.found


def test_every_choice_of_a_static_argument_is_tried(proof_of):
    code = "def f(x, *, reduction='sum'):\n    return getattr(x, reduction)(0)\n"
    contract = (
        "inputs: {x: 'float32[n, m]'}\nstatic:\n"
        "  reduction: {type: str, default: sum, choices: [sum, mean, argmax]}\n"
        "outputs: {y: 'float32[m]'}\n"
    )
    (problem,) = proof_of(code, contract).problems
    assert (problem.line, problem.path) == (8, "outputs.y")
    assert "int64 in shape (3,) from torch" in problem.found
    assert "reduction='argmax'" in problem.found
    assert proof_of(code, contract.replace(", argmax", "")).problems == []


def test_static_arguments_without_a_default(proof_of):
    code = "def f(x, *, dim):\n    return x.sum(dim)\n"
    contract = "inputs: {x: 'float32[n, m]'}\nstatic:\n  dim: {type: int}\n"
    proof = proof_of(code, contract + "outputs: {y: 'float32[n]'}\n")
    assert proof.problems == []
    assert ("static", "only tried with dim=1") in proof.remarks
    contract = contract.replace("type: int", "type: str")
    (problem,) = proof_of(code, contract + "outputs: {y: 'float32[n]'}\n").problems
    assert (problem.line, problem.path) == (7, "static.dim")


@pytest.mark.parametrize(
    ("code", "inputs", "output", "expected", "found"),
    [
        # Each is right at most sizes.
        ("x[:100]", "[n]", "[n]", "`n` (axis 0) to be 1031", "got 100|shape (100,)"),
        ("x[: (len(x) + 1) // 3]", "[n]", "[n//3]", "`n//3` (axis 0)", "from torch"),
        (
            "torch.nn.functional.pad(x, (0, -len(x) % 8))",
            "[n]",
            "[n//8*8+8]",
            "`n//8*8+8` (axis 0) to be 16",
            "with n=8",
        ),
    ],
)
def test_formulas_that_are_right_at_most_sizes(proof_of, code, inputs, output, expected, found):
    contract = f"inputs: {{x: 'float32{inputs}'}}\noutputs: {{y: 'float32{output}'}}\n"
    (problem,) = proof_of(f"def f(x):\n    return {code}\n", contract).problems
    assert (problem.path, problem.line) == ("outputs.y", 6)
    assert expected in problem.expected
    assert any(one in problem.found for one in found.split("|"))


def test_tables_that_end_somewhere(proof_of):
    code = "TABLE = torch.ones(77, 2)\ndef f(x):\n    return x + TABLE[: len(x)]\n"
    arrays = "inputs: {x: 'float32[n, 2]'}\noutputs: {y: 'float32[n, 2]'}\n"
    proof = proof_of(code, arrays)
    (problem,) = proof.problems
    assert "put `n <= 77` under `constraints`" in problem.found
    assert proof.suggestions == ["n <= 77"]
    assert proof_of(code, arrays + "constraints: [n <= 77]\n").problems == []


def test_constraints_that_are_too_weak(proof_of):
    code = "def f(x):\n    return x.reshape(len(x), 4, -1)\n"
    arrays = "inputs: {x: 'float32[n, d]'}\noutputs: {y: 'float32[n, 4, d//4]'}\n"
    (problem,) = proof_of(code, arrays + "constraints: [d % 2 == 0]\n").problems
    assert (problem.path, problem.line) == ("inputs", 5)
    assert "d=6" in problem.found
    assert proof_of(code, arrays + "constraints: [d % 4 == 0]\n").problems == []


def test_undeclared_random_numbers(proof_of):
    code = "def f(x, *, train=False):\n    return torch.dropout(x, 0.5, train)\n"
    arrays = "inputs: {x: 'float32[n]'}\nstatic: {train: false}\noutputs: {y: 'float32[n]'}\n"
    (problem,) = proof_of(code, arrays).problems
    assert problem.path == "random"
    assert problem.expected == "a function that draws no random numbers, or `random: key`"
    assert "train=True" in problem.found
    assert proof_of(code, arrays + "random: key\n").problems == []
