from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]

GOOD = "schema: jaxtorch/1\nname: f\nversion: 1.0.0\ninputs: {}\noutputs:\n  y: float32[n]\n"
BAD = GOOD.replace("1.0.0", "1.0").replace("float32", "float33")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXTORCH_SPECS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("specs/deeper").mkdir(parents=True)
    Path("specs/good.yaml").write_text(GOOD)


def test_fine(here, jaxtorch):
    for arguments in ((), ("specs",), ("specs/good.yaml",)):
        done = jaxtorch("check", "--syntax", *arguments)
        assert (done.code, done.out) == (0, "1 file, no problems\n")


def test_every_problem_of_every_file(here, jaxtorch):
    Path("specs/bad.yaml").write_text(BAD)
    Path("specs/deeper/worse.yml").write_text("name: [")
    Path("specs/.hidden.yaml").write_text("name: [")
    done = jaxtorch("check", "--syntax")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("specs/bad.yaml:3:10: `version`: expected three numbers")
    assert lines[1].startswith("specs/bad.yaml:6:6: `outputs.y`: expected a dtype")
    assert lines[2].startswith("specs/deeper/worse.yml:1:8: expected valid YAML")
    assert lines[3:] == ["3 files, 3 problems"]


def test_one_version_in_two_files(here, jaxtorch):
    Path("specs/copy.yaml").write_text(GOOD.replace("[n]", "[m]"))
    done = jaxtorch("check", "--syntax")
    assert done.code == 1
    assert "specs/good.yaml:3:10: `version`: expected one content for f@1.0.0" in done.out
    assert "another in `specs/copy.yaml`" in done.out


def test_github(here, jaxtorch):
    Path("specs/a,b.yaml").write_text(BAD)
    done = jaxtorch("check", "--syntax", "--format", "github")
    assert done.code == 1
    assert done.out.splitlines()[0] == (
        "::error file=specs/a%2Cb.yaml,line=3,col=10::`version`: expected three numbers in "
        'quotes, such as "1.0.0"; got 1.0 (a number)'
    )


def test_json(here, jaxtorch):
    Path("specs/bad.yaml").write_text(BAD)
    done = jaxtorch("check", "--syntax", "--json")
    assert (done.code, done.json["files"]) == (1, 2)
    assert [(one["path"], one["line"]) for one in done.json["problems"]] == [
        ("version", 3),
        ("outputs.y", 6),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("--syntax", "nowhere"),
        ("--syntax", "--json", "--format", "github"),
        ("--syntax", "--numeric"),
    ],
)
def test_wrong_usage(here, jaxtorch, arguments):
    done = jaxtorch("check", *arguments)
    assert done.code == 2
    assert done.err.startswith("jaxtorch: ")


def test_a_function_that_writes_to_its_arguments(here, jaxtorch, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("writing_ops.py").write_text("def descend(p, g, *, lr=0.1):\n    p.add_(g, alpha=-lr)\n")
    text = (
        "schema: jaxtorch/1\nname: descend\nversion: 1.0.0\nfunction: writing_ops:descend\n"
        "inputs:\n  p: float32[n, m]\n  g: float32[n, m]\nstatic: {lr: 0.1}\n"
        "outputs:\n  p: float32[n, m]\n"
    )
    Path("specs/good.yaml").write_text(text + "mutates: [p]\n")
    done = jaxtorch("check", "--numeric")
    assert done.code == 0, done.out
    assert "numeric      gradients are those of torch and of finite differences" in done.out
    assert "values are those of torch" in done.out
    Path("specs/good.yaml").write_text(text)
    done = jaxtorch("check")
    assert done.code == 1
    assert "the torch function writes to it in place" in done.out


def test_a_function_that_gets_copies_of_its_arguments(here, jaxtorch, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    code = "def centre(x, y):\n    x -= x.mean()\n    return x * y\n"
    Path("copying_ops.py").write_text(code)
    text = (
        "schema: jaxtorch/1\nname: centre\nversion: 1.0.0\nfunction: copying_ops:centre\n"
        "inputs:\n  x: float32[n, m]\n  y: float32[n, m]\n"
        "outputs:\n  z: float32[n, m]\nconstraints: [n > 1, m > 1]\n"
    )
    Path("specs/good.yaml").write_text(text + "copies: [x]\n")
    done = jaxtorch("check", "--numeric")
    assert done.code == 0, done.out
    assert "numeric      gradients are those of torch and of finite differences" in done.out
    Path("specs/good.yaml").write_text(text)
    done = jaxtorch("check")
    assert done.code == 1
    assert 'copies=("x",)' in done.out


def test_the_contracts_of_this_repository(jaxtorch, monkeypatch):
    assert jaxtorch("check", "--syntax", ROOT / "specs").code == 0
    monkeypatch.chdir(ROOT)  # from where examples can be imported
    done = jaxtorch("check", "specs/attention.yaml", "specs/digits_cnn.yaml", "--json")
    assert (done.code, done.json["problems"]) == (0, [])
    assert all(one["calls"] > 10 for one in done.json["contracts"])


FUNCTION = "import torch\n\ndef f(x):\n    return x.T\n"


@pytest.fixture
def functions(here, monkeypatch):
    """A right contract, a wrong one and one that names no module, of functions in this folder."""
    Path("shop_ops.py").write_text(FUNCTION)
    head = "schema: jaxtorch/1\nname: {}\nversion: 1.0.0\nfunction: {}:f\n"
    body = "inputs:\n  x: float32[n, m]\noutputs:\n  y: float32[{}]\n"
    Path("specs/right.yaml").write_text(head.format("right", "shop_ops") + body.format("m, n"))
    Path("specs/wrong.yaml").write_text(head.format("wrong", "shop_ops") + body.format("n, m"))
    Path("specs/lost.yaml").write_text(head.format("lost", "shop_lost") + body.format("n, m"))
    yield
    sys.modules.pop("shop_ops", None)


def test_functions_are_compared_with_their_contracts(functions, jaxtorch):
    path = list(sys.path)
    done = jaxtorch("check")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("specs/lost.yaml:4:11: `function`: expected a module `shop_lost`")
    assert lines[1].startswith("specs/wrong.yaml:8:6: `outputs.y`: expected dimension `n`")
    assert "got 3 in shape (3, 2) from torch, with n=2, m=3" in lines[1]
    assert "lost@1.0.0: 1 problem (0 calls) shop_lost:f" in lines
    assert "  vmap         torch_vmap: one call by torch.vmap" in lines
    assert lines[-2:] == ["f@1.0.0: names no function", "4 files, 2 problems"]
    assert sys.path == path


def test_syntax_alone_imports_nothing(functions, jaxtorch):
    assert jaxtorch("check", "--syntax").code == 0
    assert "shop_ops" not in sys.modules


def test_functions_in_json(functions, jaxtorch):
    done = jaxtorch("check", "--json", "specs/right.yaml", "specs/wrong.yaml")
    assert done.code == 1
    right, wrong = done.json["contracts"]
    assert (right["name"], right["problems"], right["evaluated_abstractly"]) == ("right", [], True)
    assert {"gradient", "vmap"} <= {one["subject"] for one in right["remarks"]}
    assert wrong["problems"] == done.json["problems"]
    assert (wrong["problems"][0]["line"], wrong["problems"][0]["column"]) == (8, 6)


def test_functions_on_github(functions, jaxtorch):
    done = jaxtorch("check", "--format", "github", "specs/wrong.yaml")
    assert done.code == 1
    (line,) = done.out.splitlines()
    assert line.startswith("::error file=specs/wrong.yaml,line=8,col=6::`outputs.y`: expected ")
    assert "wrong@1.0.0: 1 problem" in done.err


def test_a_syntax_check_starts_without_jax_and_torch(functions, run_python):
    script = (
        f"import sys, os; os.chdir({os.getcwd()!r})\n"
        "sys.argv = ['jaxtorch', 'check', '--syntax']\n"
        "from jaxtorch_bridge.tools.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code)\n"
        "print(sorted({'jax', 'torch', 'numpy', 'rich'} & set(sys.modules)))\n"
    )
    assert run_python(script).splitlines()[-2:] == ["0", "[]"]


def test_the_hooks_call_what_is_there(functions, jaxtorch):
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == [
        "jaxtorch-check-syntax",
        "jaxtorch-check",
        "jaxtorch-stubs",
    ]
    for hook in hooks:
        assert re.search(hook["files"], "specs/right.yaml")
        assert re.search(hook["files"], "model/specs/deep/right.yaml")
        assert not re.search(hook["files"], "docs/right.yaml")
    syntax, check, stubs = (shlex.split(hook["entry"])[1:] for hook in hooks)
    assert jaxtorch(*syntax, "specs/right.yaml").code == 0
    assert jaxtorch(*check, "specs/right.yaml").code == 0
    assert jaxtorch(*check, "specs/wrong.yaml", "specs/right.yaml").code == 1
    assert jaxtorch(*stubs, "--out", ".").code == 1  # missing
