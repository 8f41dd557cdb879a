from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def contract(name: str, version: str = "1.0.0", function: str | None = "lib.ops:f") -> str:
    target = f"function: {function}\n" if function else ""
    return (
        f"schema: jaxtorch/1\nname: {name}\nversion: {version}\n{target}"
        'inputs: {x: "float32[n]"}\noutputs: {y: "float32[n]"}\n'
    )


@pytest.fixture
def specs(tmp_path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "f.yaml").write_text(contract("f"))
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "pkg"


def test_writes_once_and_then_finds_all_up_to_date(jaxtorch, specs, out):
    first = jaxtorch("stubs", specs, "-o", out)
    assert (first.code, "1 written" in first.out) == (0, True)
    path = out / "lib" / "ops.pyi"
    before = path.stat().st_mtime_ns
    second = jaxtorch("stubs", specs, "-o", out)
    assert (second.code, "1 up to date, 0 written" in second.out) == (0, True)
    assert path.stat().st_mtime_ns == before
    assert jaxtorch("stubs", specs, "-o", out, "--check").code == 0
    assert [one.name for one in path.parent.iterdir()] == ["ops.pyi"]


def test_check_shows_what_is_out_of_date_and_writes_nothing(jaxtorch, specs, out):
    missing = jaxtorch("stubs", specs, "-o", out, "--check")
    assert (missing.code, out.exists()) == (1, False)
    assert "missing" in missing.out
    jaxtorch("stubs", specs, "-o", out)
    before = (out / "lib" / "ops.pyi").read_bytes()
    (specs / "f.yaml").write_text(contract("f", "1.1.0"))
    done = jaxtorch("stubs", specs, "-o", out, "--check")
    assert done.code == 1
    assert "out of date" in done.out
    assert "-#   f@1.0.0: f\n+#   f@1.1.0: f\n" in done.out
    assert (out / "lib" / "ops.pyi").read_bytes() == before


def test_line_ends_of_windows_are_no_difference(jaxtorch, specs, out):
    jaxtorch("stubs", specs, "-o", out)
    path = out / "lib" / "ops.pyi"
    assert b"\r" not in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert jaxtorch("stubs", specs, "-o", out, "--check").code == 0


def test_json(jaxtorch, specs, out):
    (specs / "free.yaml").write_text(contract("free", function=None))
    checked = jaxtorch("stubs", specs, "-o", out, "--check", "--json")
    (stub,) = checked.json["stubs"]
    assert checked.code == 1
    assert (stub["module"], stub["contracts"], stub["state"]) == ("lib.ops", ["f@1.0.0"], "missing")
    assert stub["diff"].startswith("--- /dev/null\n")
    assert checked.json["without_function"] == ["free@1.0.0"]
    written = jaxtorch("stubs", specs, "-o", out, "--json").json["stubs"]
    assert [(one["state"], one["diff"]) for one in written] == [("written", "")]


def test_the_newest_version_counts_and_the_header_says_so(jaxtorch, specs, out):
    (specs / "old.yaml").write_text(contract("f", "0.10.0"))
    (specs / "older.yaml").write_text(contract("f", "0.9.0"))
    assert jaxtorch("stubs", specs, "-o", out).code == 0
    assert "#   f@1.0.0 (not 0.9.0, 0.10.0): f\n" in (out / "lib" / "ops.pyi").read_text()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (contract("g"), ("one contract for lib.ops:f", "f@1.0.0", "g@1.0.0")),
        (contract("f"), ("f@1.0.0 in one file", "f.yaml:3", "other.yaml:3")),
        (contract("g", function="lib.ops:f.call"), ("`f` to be a class",)),
        ("schema: jaxtorch/1\nname: g\n", ("a field `version`", "a field `inputs`")),
    ],
    ids=["two contracts", "one version twice", "a function as a class", "not valid"],
)
def test_findings_in_contracts_write_nothing(jaxtorch, specs, out, other, words):
    (specs / "other.yaml").write_text(other)
    done = jaxtorch("stubs", specs, "-o", out)
    assert (done.code, out.exists()) == (1, False)
    for word in words:
        assert word in done.err
    assert jaxtorch("stubs", specs, "-o", out, "--json").json["problems"]


def test_a_stub_of_somebody_else_is_left_alone(jaxtorch, specs, out):
    (specs / "g.yaml").write_text(contract("g", function="lib.other:g"))
    path = out / "lib" / "ops.pyi"
    path.parent.mkdir(parents=True)
    path.write_text("def f(x): ...\n")
    for flags in ((), ("--check",)):
        done = jaxtorch("stubs", specs, "-o", out, *flags)
        assert done.code == 1
        assert "not made by `jaxtorch stubs`" in done.out
    assert path.read_text() == "def f(x): ...\n"
    assert not (path.parent / "other.pyi").exists()


def test_a_package_that_stands_there_gets_its_stub_inside(jaxtorch, specs, out):
    (out / "lib" / "ops").mkdir(parents=True)
    (out / "lib" / "ops" / "__init__.py").touch()
    assert jaxtorch("stubs", specs, "-o", out).code == 0
    assert (out / "lib" / "ops" / "__init__.pyi").exists()


def test_a_failed_write_leaves_the_old_stub_whole(jaxtorch, specs, out, monkeypatch):
    jaxtorch("stubs", specs, "-o", out)
    path = out / "lib" / "ops.pyi"
    before = path.read_bytes()
    (specs / "f.yaml").write_text(contract("f", "2.0.0"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    done = jaxtorch("stubs", specs, "-o", out)
    assert (done.code, "No space left" in done.err) == (2, True)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["ops.pyi"]


def test_outputs_in_a_dict(jaxtorch, tmp_path, out):
    shutil.copy(GOLDEN / "specs" / "split.yaml", tmp_path)
    file = tmp_path / "split.yaml"
    texts = []
    for flags in ((), ("--dict-outputs", "split"), ("--dict-outputs", "*")):
        assert jaxtorch("stubs", file, "-o", out, *flags).code == 0
        texts.append((out / "mylib" / "models.pyi").read_text())
    assert '-> tuple[Float32[Array, "n//2"], Float32[Array, "n-n//2"]]:' in texts[0]
    assert "-> _SplitOutputs:" in texts[1]
    assert texts[1] == texts[2]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("stubs", "nowhere", "-o", "pkg"), "nowhere"),
        (("stubs", "specs"), "out"),
        (("stubs", "specs", "-o", "specs/f.yaml"), "expected a folder"),
        (("stubs", "specs", "-o", "pkg", "--dict-outputs", "g"), "the name of a contract"),
    ],
)
def test_wrong_usage(jaxtorch, specs, monkeypatch, arguments, word):
    monkeypatch.chdir(specs.parent)
    done = jaxtorch(*arguments)
    assert (done.code, word in done.err) == (2, True)


def test_stubs_need_neither_jax_nor_torch(run_python, tmp_path):
    arguments = ["jaxtorch", "stubs", "specs", "-o", str(tmp_path)]
    script = (
        f"import sys; sys.argv = {arguments!r}\n"
        "from jaxtorch_bridge.tools.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code)\n"
        "print(sorted({'jax', 'torch', 'numpy', 'jaxtyping'} & set(sys.modules)))\n"
    )
    assert run_python(script).splitlines()[-2:] == ["0", "[]"]
