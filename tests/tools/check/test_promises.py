"""What is said of derivatives, batches and shards, and which claims are refused."""

from __future__ import annotations

import pytest

ONE = "inputs:\n  x: float32[n, m]\noutputs:\n  y: float32[n, m]\n"
SIN = "def f(x):\n    return x.sin()\n"


def words(proof, subject):
    return [text for name, text in proof.remarks if name == subject]


def test_engines_and_bytes(proof_of):
    proof = proof_of(SIN, ONE)
    assert proof.problems == []
    (first,) = words(proof, "gradient")
    # `sin` saves its input, which JAX has.
    assert first.startswith("by x: tape: the function runs once, and torch keeps 0 bytes for")
    second, why = words(proof, "order 2")
    assert second == "by x: recompute with torch.func.vjp, 0 bytes kept"
    assert why.startswith("not tape: ")
    assert words(proof, "vmap") == ["torch_vmap: one call by torch.vmap"]


@pytest.mark.parametrize(
    "code",
    [
        "N = torch.zeros(())\ndef f(x):\n    N.add_(1)\n    return x.sin()\n",
        "def f(x):\n    return x * torch.rand_like(x)\n",
        SIN,
    ],
    ids=["writes", "draws", "plain"],
)
@pytest.mark.parametrize("word", ["tape", "auto"])
def test_a_tape_is_kept_of_every_function(proof_of, code, word):
    proof = proof_of(code, ONE + f"random: key\nresiduals: {word}\n")
    assert proof.problems == []
    (first,) = words(proof, "gradient")
    assert first.startswith("by x: tape: the function runs once, and torch keeps ")


def test_recompute_and_depth(proof_of):
    proof = proof_of(SIN, ONE + "residuals: recompute\nvjp_depth: 1\n")
    assert proof.problems == []
    assert words(proof, "gradient")[0].startswith("by x: recompute with torch.func.vjp")
    assert words(proof, "order 2") == []
    assert words(proof_of(SIN, ONE + "vjp_depth: 0\n"), "gradient") == [
        "none: the contract says `vjp_depth: 0`"
    ]


def test_no_gradient(proof_of):
    code = "def f(x):\n    return x.detach() * 2\n"
    assert words(proof_of(code, ONE), "gradient") == ["by x: zero: no output depends on them"]
    code = "def f(x):\n    return x > 0\n"
    contract = ONE.replace("y: float32", "y: bool")
    assert words(proof_of(code, contract), "gradient") == ["none: no differentiable output"]


@pytest.mark.parametrize(
    ("code", "more", "place", "expected", "found"),
    [
        (
            "from torch.autograd.function import once_differentiable\n"
            "class S(torch.autograd.Function):\n"
            "    @staticmethod\n    def forward(ctx, x):\n"
            "        ctx.save_for_backward(x)\n        return x.sin()\n"
            "    @staticmethod\n    @once_differentiable\n"
            "    def backward(ctx, g):\n        return g * ctx.saved_tensors[0].cos()\n"
            "def f(x):\n    return S.apply(x)\n",
            "vjp_depth: 2\n",
            (9, "vjp_depth"),
            "derivatives of order 2",
            "once_differentiable",
        ),
        (
            "def f(x):\n    x = x.detach().requires_grad_()\n"
            "    return torch.autograd.grad(x.sin().sum(), x)[0]\n",
            "",
            (8, "outputs"),
            "a derivative, or `vjp_depth: 0`",
            "create_graph",
        ),
        (
            "def f(x):\n    return x.sum(0, keepdim=True).expand(x.shape)\n",
            "vmap_method: broadcast_all\n",
            None,
            "",
            "",
        ),
        (
            "def f(x):\n    return x.reshape(len(x), -1)\n",
            "vmap_method: broadcast_all\n",
            (9, "vmap_method"),
            "works along leading axes",
            "expected [3, 2, 3] for a batch",
        ),
        (
            SIN,
            "sharding: {m: model}\n",
            None,
            "",
            "",
        ),
    ],
    ids=["depth", "hidden", "claim of values", "claim of shapes", "sharding"],
)
def test_claims(proof_of, code, more, place, expected, found):
    proof = proof_of(code, ONE + more)
    if place is None:  # what only values can show
        assert proof.problems == []
        return
    (problem,) = proof.problems
    assert (problem.line, problem.path) == place
    assert expected in problem.expected
    assert found in problem.found


def test_a_backend_that_cannot_run_it(proof_of):
    code = "def f(x):\n    return x + torch.rand_like(x)\n"
    more = "execution: {backend: compile}\nrandom: key\n"
    (problem,) = proof_of(code, ONE + more).problems
    assert (problem.line, problem.path) == (9, "execution.backend")
    assert "it draws random numbers" in problem.found


def test_what_goes_wrong_in_comparing_is_a_finding(proof_of, monkeypatch):
    from jaxtorch_bridge.tools.check import compare_function as prove

    def broken(*_):
        raise KeyError("odd")

    monkeypatch.setattr(prove, "promises_of", broken)
    (problem,) = proof_of(SIN, ONE).problems
    assert (problem.line, problem.path) == (4, "function")
    assert problem.found.startswith("KeyError: 'odd'")


def test_a_function_that_ends_the_process_ends_its_own_proof(proof_of):
    (problem,) = proof_of("def f(x):\n    raise SystemExit(0)\n", ONE).problems
    assert (problem.line, problem.path) == (4, "function")
    assert problem.found.startswith("SystemExit: 0")


def test_sharding(proof_of):
    contract = ONE + "sharding: {n: data}\n"
    assert words(proof_of(SIN, contract), "sharding") == [
        "`n` along mesh axis data: one call for each shard"
    ]
    code = "def f(x):\n    return x.sum(0)\n"
    (problem,) = proof_of(code, contract.replace("y: float32[n, m]", "y: float32[m]")).problems
    assert (problem.line, problem.path) == (9, "sharding")
    assert "expected the dimension `n` once" in problem.found


def test_one_call_an_element_is_said(proof_of):
    code = "N = torch.zeros(())\ndef f(x):\n    N.add_(1)\n    return x.sin()\n"
    (text,) = words(proof_of(code, ONE), "vmap")
    assert "one call an element" in text
