from __future__ import annotations

import sys
from pathlib import Path

import pytest

CODE = """
import torch

def attend(q, k, mask=None, *, causal=False):
    scores = q @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    scores = scores.tril() if causal else scores
    return scores.softmax(-1) @ k

def branches(x):
    return x * 2 if float(x.detach().sum()) > 0 else x

def hidden(x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(x.sin().sum(), x)[0]
"""
SMALL = """schema: jaxtorch/1
name: {0}
version: 1.0.0
function: plan_ops:{0}
inputs: {{x: 'float32[n]'}}
outputs: {{y: 'float32[n]'}}
"""
SPEC = """schema: jaxtorch/1
name: attend
version: {}
function: plan_ops:attend
inputs:
  q: float32|bfloat16[batch, seq, dim]
  k: like q[batch, keys, dim]
  mask: {{shape: "[seq, keys]", dtype: bool, optional: true}}
static: {{causal: false}}
outputs:
  out: like q[batch, seq, dim]
constraints: [dim % 2 == 0]
vjp_depth: 1
sharding: {{batch: data}}
"""
SIZES = "batch=4,seq=3,dim=2,keys=5"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXTORCH_SPECS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("specs").mkdir()
    Path("plan_ops.py").write_text(CODE)
    Path("specs/attend.yaml").write_text(SPEC.format("1.2.0"))
    Path("specs/older.yaml").write_text(SPEC.format("1.1.0"))
    yield
    sys.modules.pop("plan_ops", None)


@pytest.mark.parametrize("name", ["attend", "specs/attend.yaml"])
def test_a_table(here, jaxtorch, name):
    done = jaxtorch("plan", name, "--shape", SIZES, "--mesh", "data=2")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "attend@1.2.0 plan_ops:attend [specs/attend.yaml:1:1]"
    for line in (
        "inputs q float32[4, 3, 2]",
        "mask bool[3, 5], not differentiable",
        "static causal False",
        "sizes batch=4, seq=3, dim=2, keys=5",
        "backend eager the function's own code; as the contract leaves it open",
        "vmap torch_vmap a batch of 2: one call by torch.vmap",
        "sharding batch cut along mesh axis data: one call for each of 2 shards of 2",
        "concurrency parallel it closes over nothing that can change",
    ):
        assert line in lines
    assert any(line.startswith("outputs out float32[4, 3, 2], ") for line in lines)
    assert any(line.startswith("gradient tape by q, k: tape: the function runs") for line in lines)
    assert "keeps tape int32[5], 20 bytes" in lines
    assert not any(line.startswith("order 2") for line in lines)  # as vjp_depth says


def test_json_and_choices(here, jaxtorch):
    arguments = ("--without", "mask", "--static", "causal=true", "--dtype", "q=bfloat16")
    done = jaxtorch("plan", "attend", "--shape", SIZES, *arguments, "--batch", "7", "--json")
    assert done.code == 0
    found = done.json
    assert [(one["name"], one["dtype"]) for one in found["inputs"]] == [
        ("q", "bfloat16"),
        ("k", "bfloat16"),
    ]
    assert found["static"] == {"causal": "True"}
    assert found["outputs"][0]["shape"] == [4, 3, 2]
    assert not found["outputs"][0]["in_place"]
    (derivative,) = found["derivatives"]
    assert (derivative["order"], derivative["engine"], derivative["by"]) == (1, "tape", ["q", "k"])
    # Between the two calls goes a token; the rest is torch's.
    (token,) = derivative["residuals"]
    assert (token["name"], token["dtype"], token["shape"]) == ("tape", "int32", [5])
    assert derivative["residual_bytes"] == token["size_bytes"] == 20
    assert derivative["tape_bytes"] > 0
    assert found["batching"]["size"] == 7
    assert found["batching"]["one_call"]
    assert found["sharding"][0] == {
        "dimension": "batch",
        "mesh_axis": "data",
        "shards": None,
        "size_of_shard": None,
    }


def test_the_plan_is_that_of_a_call(here, jaxtorch, monkeypatch):
    monkeypatch.setenv("JAXTORCH_SPECS", "specs")
    import jax.numpy as jnp

    from jaxtorch_bridge import jax_callable

    names = {}
    exec(CODE, names)
    wrapped = jax_callable(names["attend"], spec="specs/attend.yaml")
    q, k = jnp.ones((4, 3, 2)), jnp.ones((4, 5, 2))
    found = jaxtorch("plan", "attend@1.2", "--shape", SIZES, "--without", "mask", "--json").json
    plan = wrapped.plan(q, k)
    assert found["sizes"] == dict(plan.sizes)
    assert [tuple(one["shape"]) for one in found["outputs"]] == [one.shape for one in plan.outputs]
    assert found["found_by"] == plan.inference.words


def test_a_contract_that_forbids_gradients(here, jaxtorch):
    Path("hidden.yaml").write_text(SMALL.format("hidden") + "vjp_depth: 0\n")
    done = jaxtorch("plan", "hidden.yaml", "--shape", "n=4", "--json")
    why = ["the contract says `vjp_depth: 0`"]
    assert done.json["derivatives"] == [{"order": 1, "engine": "none", "why": why}]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "tape: one run, whose record torch keeps for the backward (when one is first taken)"),
        (
            "residuals: recompute\n",
            "recompute: the backward runs the function again, as the contract says",
        ),
        ("vjp_depth: 0\n", "none: the contract says `vjp_depth: 0`"),
    ],
    ids=["open", "recompute", "none"],
)
def test_what_a_plan_says_of_the_gradient_before_one_is_taken(here, more, words):
    import jax.numpy as jnp

    from jaxtorch_bridge import jax_callable

    Path("sine.yaml").write_text(SMALL.format("sine").replace("function: plan_ops:sine\n", more))
    wrapped = jax_callable(lambda x: x.sin(), spec="sine.yaml")
    assert f"gradient     {words}" in wrapped.explain(jnp.ones(3)).splitlines()


def test_a_function_that_looks_at_values(here, jaxtorch):
    Path("branches.yaml").write_text(SMALL.format("branches"))
    done = jaxtorch("plan", "branches.yaml", "--shape", "n=4", "--json")
    assert done.code == 0
    assert done.json["found_by"] == "taken from the contract; the function was not run"
    first, second = done.json["derivatives"]
    assert (first["engine"], first["why"]) == ("tape", [])
    # Only a run shows what torch keeps. It may draw, so generators' states travel with the token.
    assert first["tape_bytes"] is None
    names = [one["name"] for one in first["residuals"]]
    assert names == ["tape", "random state 0", "random state 1", "random state 2"]
    assert second["engine"] == "tape"
    assert "copies of the inputs" in second["words"]
    assert not done.json["batching"]["one_call"]


def test_a_function_that_hides_its_derivative(here, jaxtorch):
    Path("hidden.yaml").write_text(SMALL.format("hidden"))
    done = jaxtorch("plan", "hidden.yaml", "--shape", "n=4", "--json")
    assert done.code == 0
    (derivative,) = done.json["derivatives"]
    assert (derivative["order"], derivative["engine"]) == (1, "none")
    assert "without create_graph=True" in derivative["why"][0]
    done = jaxtorch("plan", "hidden.yaml", "--shape", "n=4")
    assert done.code == 0
    assert "gradient     none        hidden@1.0.0: cannot differentiate by `x`" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--shape lacks `batch`, `seq`, `dim`, `keys` of attend@1.2.0"),
        (("--shape", "batch=4,sek=3"), "(did you mean `seq`?); got `sek`"),
        (("--shape", "batch"), "expected batch=8,seq=128; got `batch`"),
        (("--shape", "batch=-1,seq=3,dim=2,keys=5"), "expected a size for `batch`; got `-1`"),
        (("--shape", f"{SIZES},...=2"), "has no `...`"),
        (("--shape", SIZES, "--static", "casual=true"), "did you mean `causal`?"),
        (("--shape", SIZES, "--without", "q"), "the optional inputs `mask`; got `q`"),
        (("--shape", SIZES, "--dtype", "q=float16"), "one of `float32`, `bfloat16`"),
        (("--shape", SIZES, "--dtype", "mask=int8"), "inputs with several dtypes, `q`"),
        (("--shape", SIZES, "--mesh", "model=2"), "a mesh axis of attend@1.2.0, `data`"),
        (("--shape", SIZES, "--mesh", "data=0"), "at least 1 device along `data`"),
    ],
)
def test_wrong_usage(here, jaxtorch, arguments, words):
    done = jaxtorch("plan", "attend", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "plan_ops" not in sys.modules  # nothing was imported for it


@pytest.mark.parametrize(
    ("name", "sizes", "mesh", "words"),
    [
        ("attend", "batch=4,seq=3,dim=3,keys=5", "data=2", "constraint `dim%2 == 0`"),
        ("attend", SIZES, "data=3", "divisible by the 3 devices along mesh axis data; got 4"),
        ("atend", SIZES, "data=2", "(did you mean `attend`?); got `atend`, looked for in `specs`"),
        ("atend.yaml", SIZES, "data=2", "expected a readable file"),
        ("attend@3", SIZES, "data=2", "expected"),
    ],
)
def test_findings(here, jaxtorch, name, sizes, mesh, words):
    done = jaxtorch("plan", name, "--shape", sizes, "--mesh", mesh)
    assert (done.code, done.out) == (1, "")
    assert words in done.err


def test_a_name_with_two_contents(here, jaxtorch):
    Path("specs/other.yaml").write_text(SPEC.format("1.2.0").replace("false", "true"))
    done = jaxtorch("plan", "attend", "--shape", SIZES)
    assert done.code == 1
    assert "expected one content for attend@1.2.0" in done.err


def test_without_a_function(here, jaxtorch):
    text = SPEC.format("2.0.0").replace("function: plan_ops:attend\n", "")
    Path("specs/attend.yaml").write_text(text)
    done = jaxtorch("plan", "attend", "--shape", SIZES)
    assert done.code == 1
    assert "a contract that names its `function`" in done.err


@pytest.mark.parametrize(
    ("asked", "in_place", "words"),
    [
        ("outputs: copy", False, "copied: execution.outputs is copy"),
        ("outputs: in_place", False, "copied: the function's own code makes it, and takes no"),
        ("outputs: in_place, backend: graph", True, "in place, by aten.bmm.out"),
    ],
)
def test_which_outputs_are_copied_and_why(here, jaxtorch, asked, in_place, words):
    text = SPEC.format("1.0.0").replace("name: attend", "name: asked")
    Path("specs/asked.yaml").write_text(text + f"execution: {{{asked}}}\n")
    done = jaxtorch("plan", "asked", "--shape", SIZES, "--json")
    assert done.code == 0
    (output,) = done.json["outputs"]
    assert output["in_place"] is in_place
    assert output["written"].startswith(words)
