from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from jaxtorch_bridge import load_spec

CODE = """
import torch
from jaxtyping import Float32

def mlp(x, w1, w2, *, scale=1.0):
    return (x @ w1).relu() @ w2 * scale

def attend(q, k, v, mask=None, *, causal=False):
    scores = q @ k.transpose(-2, -1)
    return scores.softmax(-1) @ v

def fused(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)

def qkv(x, w):
    return (x @ w).reshape(*x.shape, 3).unbind(-1)

def conv(x, w):
    return torch.nn.functional.max_pool2d(torch.nn.functional.conv2d(x, w, padding=1), 2)

def heads(x):
    return x.reshape(len(x), 4, -1)

def windows(x):
    return {"sums": x.unfold(1, 3, 1).sum(-1), "count": torch.tensor(len(x)), "all": [x.flatten()]}

def grouped(x, p):
    return x @ p["w"] + p["b"]

def layered(x, params):
    for layer in params["layers"]:
        x = x @ layer["w"] + layer["b"]
    return x @ params["head"]

def branches(x):
    return x * 2 if float(x.detach().sum()) > 0 else x

def endless(x, *, limit=float("inf"), gap=float("nan")):
    return x

def along(x, dim):
    return x.sum(dim)

def fails(x):
    raise ValueError("never")

def squares(x):
    return torch.zeros(len(x) ** 2)

Rows = Float32[torch.Tensor, "batch dim"]

def annotated(x: Rows, *, causal: bool = False) -> Rows:
    return x.cumsum(0) if causal else x

def half(x: Rows):
    return x
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("infer_ops.py").write_text(CODE)
    yield
    sys.modules.pop("infer_ops", None)


def infer(jaxtorch, function, *examples, flags=()):
    arguments = [one for text in examples for one in ("--example", text)]
    return jaxtorch("infer", f"infer_ops:{function}", *arguments, *flags)


def parts(done):
    data = yaml.safe_load(done.out)
    return data["inputs"], data["outputs"], data.get("constraints")


@pytest.mark.parametrize(
    ("function", "examples", "inputs", "outputs", "constraints"),
    [
        (
            "mlp",
            ("float32[8,128]", "float32[128,128]", "float32[128,10]"),
            {"x": "float32[batch, n]", "w1": "float32[n, m]", "w2": "float32[m, k]"},
            {"out": "float32[batch, k]"},
            None,
        ),
        (
            "attend",
            ("float32[b=2,6,6]", "float32[2,6,6]", "float32[2,keys=6,6]"),
            {"q": "float32[b, n, m]", "k": "float32[b, keys, m]", "v": "float32[b, keys, p]"},
            {"out": "float32[b, n, p]"},
            None,
        ),
        (
            # Keys and values may differ in length as fakes, while the fused kernel takes them.
            "fused",
            ("float32[2,8,8,8]", "float32[2,8,10,8]", "float32[2,8,keys=10,8]"),
            {
                "q": "float32[batch, n, m, p]",
                "k": "float32[batch, n, keys, p]",
                "v": "float32[batch, n, keys, r]",
            },
            {"out": "float32[batch, n, m, r]"},
            None,
        ),
        (
            "qkv",
            ("float32[2,8]", "float32[8,24]"),
            {"x": "float32[batch, n]", "w": "float32[n, 3*n]"},
            {f"out{i}": "float32[batch, n]" for i in range(3)},
            None,
        ),
        (
            "conv",
            ("float32[2,3,9,8]", "float32[16,3,3,1]"),
            {"x": "float32[batch, n, m, k]", "w": "float32[p, n, q, 1]"},
            {"out": "float32[batch, p, (m-q+3)//2, (k+2)//2]"},
            None,
        ),
        (
            "heads",
            ("float32[2,16]",),
            {"x": "float32[batch, n]"},
            {"out": "float32[batch, 4, n//4]"},
            ["n % 4 == 0"],
        ),
        (
            "windows",
            ("float32[4,9]",),
            {"x": "float32[batch, n]"},
            {"all": ["float32[batch*n]"], "count": "int64[]", "sums": "float32[batch, n-2]"},
            None,
        ),
        (
            "grouped",
            ("p.w=float32[4,4]", "float32[8,4]", "p.b=float32[4]"),
            {"x": "float32[batch, n]", "p": {"w": "float32[n, m]", "b": "float32[m]"}},
            {"out": "float32[batch, m]"},
            None,
        ),
        (
            "layered",
            (
                *("float32[5,8]", "params.layers.1.b=float32[6]", "params.layers.0.w=float32[8,7]"),
                *("params.layers.0.b=float32[7]", "params.layers.1.w=float32[7,6]"),
                "params.head=float32[6,3]",
            ),
            {
                "x": "float32[batch, n]",
                "params": {
                    "layers": [
                        {"w": "float32[n, k]", "b": "float32[k]"},
                        {"b": "float32[m]", "w": "float32[k, m]"},
                    ],
                    "head": "float32[m, p]",
                },
            },
            {"out": "float32[batch, p]"},
            None,
        ),
    ],
)
def test_drafts(jaxtorch, function, examples, inputs, outputs, constraints):
    done = infer(jaxtorch, function, *examples)
    assert done.code == 0, done.err
    assert parts(done) == (inputs, outputs, constraints)
    Path("draft.yaml").write_text(done.out)
    spec = load_spec("draft.yaml")
    assert (spec.version, spec.function) == ("0.1.0", f"infer_ops:{function}")


def test_guessed_names_are_marked(jaxtorch):
    done = infer(jaxtorch, "mlp", "float32[rows=8,128]", "float32[128,128]", "float32[128,10]")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "# First draft by `jaxtorch infer`, from one example: look at the names."
    assert "x: float32[rows, n] # guessed: n=128" in lines
    assert "w1: float32[n, m] # guessed: m=128; n as in x axis 1" in lines
    assert "scale: 1.0" in lines


def test_a_function_that_looks_at_values_is_run(jaxtorch):
    done = infer(jaxtorch, "branches", "float32[8]")
    assert done.code == 0
    assert "# The function looks at values, so it was run on made-up arrays." in done.out
    assert parts(done)[1] == {"out": "float32[n]"}


def test_no_formula(jaxtorch):
    done = infer(jaxtorch, "squares", "float32[4]")
    assert done.code == 0
    assert "out: float32[free1]" in done.out
    assert "# free1=16 in the example: no formula was found" in done.out


def test_static_values(jaxtorch):
    done = infer(jaxtorch, "along", "float32[4,6]", flags=("--static", "dim=1"))
    assert done.code == 0
    assert "  dim: {type: int, choices: [1]}\n" in done.out


def test_from_annotations(jaxtorch):
    done = infer(jaxtorch, "annotated")
    assert done.code == 0
    assert parts(done)[:2] == ({"x": "float32[batch, dim]"}, {"out": "float32[batch, dim]"})
    assert "  causal: false\n" in done.out


def test_a_file_is_written_whole_and_not_replaced(jaxtorch):
    flags = ("-o", "specs.yaml", "--name", "rows")
    assert infer(jaxtorch, "heads", "float32[2,16]", flags=flags).code == 0
    before = Path("specs.yaml").read_text()
    assert load_spec("specs.yaml").name == "rows"
    again = infer(jaxtorch, "heads", "float32[3,16]", flags=flags)
    assert (again.code, again.out) == (2, "")
    assert "--force replaces it" in again.err
    assert Path("specs.yaml").read_text() == before
    flags = ("-o", "specs.yaml", "--force", "--json")
    done = infer(jaxtorch, "heads", "float32[dim=3,16]", flags=flags)
    assert done.json["file"] == "specs.yaml"
    assert Path("specs.yaml").read_text() == done.json["text"] != before
    assert done.json["contract"]["inputs"] == {"x": "float32[dim, n]"}
    assert done.json["guessed"] == ["n"]
    assert set(os.listdir()) - {"__pycache__"} == {"infer_ops.py", "specs.yaml"}


def test_what_fails_is_a_finding_and_nothing_is_written(jaxtorch):
    done = infer(jaxtorch, "fails", "float32[8]", flags=("-o", "specs.yaml"))
    assert (done.code, Path("specs.yaml").exists()) == (1, False)
    assert "ValueError: never" in done.err
    done = jaxtorch("infer", "no_such_ops:f", "--example", "float32[8]", "--json")
    assert done.code == 1
    assert done.json["problems"][0]["path"] == "function"


@pytest.mark.parametrize(
    ("function", "examples", "words"),
    [
        ("heads", (), "no annotations in jaxtyping's form"),
        ("half", (), "do not say what comes back"),
        ("heads", ("float31[8]",), "did you mean `float32`?"),
        ("heads", ("float32[8",), "expected an array such as"),
        ("heads", ("float32[n]",), "expected sizes such as 8 or batch=8; got `n`"),
        ("heads", ("float32[8]", "float32[8]"), "has only 1 parameters"),
        ("heads", ("y=float32[8]",), "one of the parameters `x`; got `y`"),
        ("grouped", ("float32[8]", "p=float32[8]", "p.w=float32[8]"), "two for `p.w`"),
        ("along", ("float32[8]",), "parameter `dim` has no default"),
        ("grouped", ("float32[8]", "p.1=float32[8]"), "expected one for `p.0`, as numbers are"),
        ("grouped", ("float32[8]", "p.0=float32[8]", "p.w=float32[8]"), "expected one for `p.1`"),
    ],
)
def test_wrong_usage(jaxtorch, function, examples, words):
    done = infer(jaxtorch, function, *examples)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_defaults_that_json_does_not_have(jaxtorch):
    done = infer(jaxtorch, "endless", "float32[4]", flags=("--json",))
    assert done.json["contract"]["static"] == {"limit": ".inf", "gap": ".nan"}
    done = infer(jaxtorch, "endless", "float32[4]")
    assert "limit: .inf" in done.out
