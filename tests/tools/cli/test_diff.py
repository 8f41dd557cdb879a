from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HEAD = "schema: jaxtorch/1\nname: {}\nversion: {}\n"
BODY = "inputs:\n  x: float32[n]\noutputs:\n  y: float32[n]\nvjp_depth: {}\n"


def write(path: str, version: str, depth: int, name: str = "f") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(HEAD.format(name, version) + BODY.format(depth))


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXTORCH_SPECS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def repository(here):
    git("init", "-b", "main")
    write("specs/f.yaml", "1.0.0", 2)
    write("specs/g.yaml", "1.0.0", 2, "g")
    git("add", ".")
    git("commit", "-m", "Start")
    git("checkout", "-b", "branch")


def test_a_breaking_change_that_the_version_hides(here, jaxtorch):
    write("old.yaml", "1.0.0", 2)
    write("new.yaml", "1.0.1", 1)
    done = jaxtorch("diff", "old.yaml", "new.yaml")
    assert done.code == 1
    assert done.out.splitlines() == [
        "f 1.0.0 -> 1.0.1",
        "  breaking  vjp_depth: changed from 2 to 1",
        "            old.yaml:8:12 -> new.yaml:8:12",
        "  problem: the version goes from 1.0.0 to 1.0.1, but breaking changes need 2.0.0 or later",
    ]


def test_a_breaking_change_that_the_version_says(here, jaxtorch):
    write("old.yaml", "1.0.0", 2)
    write("new.yaml", "2.0.0", 1)
    assert jaxtorch("diff", "old.yaml", "new.yaml").code == 0
    assert jaxtorch("diff", "--fail-on", "breaking", "old.yaml", "new.yaml").code == 1


def test_nothing_changed(here, jaxtorch):
    write("old.yaml", "1.0.0", 2)
    done = jaxtorch("diff", "old.yaml", "old.yaml")
    assert (done.code, done.out) == (0, "no changes\n")
    assert jaxtorch("diff", "--fail-on", "any", "old.yaml", "old.yaml").code == 0


def test_json(here, jaxtorch):
    write("old.yaml", "1.0.0", 2)
    write("new.yaml", "1.1.0", 3)
    done = jaxtorch("diff", "old.yaml", "new.yaml", "--json")
    assert done.code == 0
    (contract,) = done.json["contracts"]
    assert (done.json["level"], done.json["problems"]) == ("additive", 0)
    assert (contract["old"], contract["new"], contract["problem"]) == ("1.0.0", "1.1.0", None)
    assert contract["changes"] == [
        {
            "level": "additive",
            "path": "vjp_depth",
            "text": "changed from 2 to 3",
            "old": "old.yaml:8:12",
            "new": "new.yaml:8:12",
        }
    ]


def test_names_of_the_registry(here, jaxtorch):
    Path("pyproject.toml").write_text("[tool.jaxtorch]\n")
    write("specs/one.yaml", "1.0.0", 2)
    write("specs/two.yaml", "1.1.0", 3)
    assert "f 1.0.0 -> 1.1.0" in jaxtorch("diff", "f@1.0", "f@1").out


@pytest.mark.parametrize(
    "arguments", [(), ("old.yaml",), ("old.yaml", "specs"), ("nothing.yaml", "old.yaml")]
)
def test_wrong_usage(here, jaxtorch, arguments):
    write("old.yaml", "1.0.0", 2)
    write("specs/one.yaml", "1.0.0", 2)
    done = jaxtorch("diff", *arguments)
    assert done.code == 2
    assert done.err.startswith("jaxtorch: ")


def test_an_invalid_contract(here, jaxtorch):
    write("old.yaml", "1.0.0", 2)
    Path("new.yaml").write_text(Path("old.yaml").read_text() + "size: 3\n")
    done = jaxtorch("diff", "old.yaml", "new.yaml")
    assert done.code == 1
    assert "new.yaml:9:1: `size`" in done.err
    done = jaxtorch("diff", "old.yaml", "new.yaml", "--json")
    assert (done.code, done.json["problems"][0]["line"]) == (1, 9)


def test_all_invalid_contracts_of_a_folder_are_told(here, jaxtorch):
    write("old/f.yaml", "1.0.0", 2)
    for name in "ab":
        Path("new").mkdir(exist_ok=True)
        Path(f"new/{name}.yaml").write_bytes(b"name: \xff")
    done = jaxtorch("diff", "old", "new", "--json")
    assert done.code == 1
    assert [one["file"] for one in done.json["problems"]] == ["new/a.yaml", "new/b.yaml"]


def test_git_an_edited_file(repository, jaxtorch):
    assert jaxtorch("diff", "--git", "main").out == "no changes\n"
    write("specs/f.yaml", "1.0.0", 1)
    done = jaxtorch("diff", "--git", "main")
    assert done.code == 1
    assert "the version stays 1.0.0, but breaking changes need 2.0.0" in done.out
    write("specs/f.yaml", "2.0.0", 1)
    assert jaxtorch("diff", "--git", "main").code == 0
    write("specs/f.yaml", "0.9.0", 2)
    assert "goes down" in jaxtorch("diff", "--git", "main").out


def test_git_a_version_beside_the_old_one(repository, jaxtorch):
    write("specs/f2.yaml", "1.0.1", 3)
    done = jaxtorch("diff", "--git", "main", "specs")
    assert done.code == 1
    assert "additive changes need 1.1.0 or later" in done.out
    write("specs/f2.yaml", "1.1.0", 3)
    assert jaxtorch("diff", "--git", "main", "specs").code == 0


def test_git_new_moved_and_removed_files(repository, jaxtorch):
    write("specs/h.yaml", "0.1.0", 2, "h")
    Path("specs/g.yaml").rename("specs/moved.yaml")
    done = jaxtorch("diff", "--git", "main")
    assert (done.code, done.out) == (0, "h@0.1.0 (new)\n  fine: the version says so\n")
    Path("specs/moved.yaml").unlink()
    done = jaxtorch("diff", "--git", "main")
    assert done.code == 1
    assert "removed, and no later version answers to `g@1`" in done.out
    assert jaxtorch("diff", "--git", "main", "--allow-removed").code == 0


def test_git_what_the_other_branch_did_meanwhile_does_not_count(repository, jaxtorch):
    write("specs/g.yaml", "1.1.0", 3, "g")
    git("commit", "-am", "Branch")
    git("checkout", "main")
    write("specs/f.yaml", "2.0.0", 1)
    git("commit", "-am", "Main")
    git("checkout", "branch")
    done = jaxtorch("diff", "--git", "main", "--json")
    assert [one["name"] for one in done.json["contracts"]] == ["g"]


BROKEN = "schema: jaxtorch/1\nname: g\nversion: 1\n"


def test_git_a_file_that_was_invalid_is_said_and_the_rest_compared(repository, jaxtorch):
    Path("specs/g.yaml").write_text(BROKEN)
    git("commit", "-am", "Break")
    git("branch", "-f", "main")
    write("specs/g.yaml", "1.0.0", 2, "g")
    write("specs/f.yaml", "1.1.0", 3)
    done = jaxtorch("diff", "--git", "main")
    assert done.code == 0
    assert re.search(r"not compared with, for it is invalid: \w{10}:specs/g.yaml:3:10", done.out)
    assert "additive  vjp_depth" in done.out
    assert "g@1.0.0 (new)" in done.out
    write("specs/f.yaml", "1.1.0", 1)
    done = jaxtorch("diff", "--git", "main", "--json")
    assert (done.code, done.json["problems"]) == (1, 1)
    assert {one["path"] for one in done.json["invalid_before"]} >= {"version", "inputs"}


def test_git_a_file_that_became_invalid_fails_and_the_rest_is_compared(repository, jaxtorch):
    Path("specs/g.yaml").write_text(BROKEN)
    write("specs/f.yaml", "1.1.0", 3)
    done = jaxtorch("diff", "--git", "main")
    assert done.code == 1
    assert "invalid: specs/g.yaml:3:10: `version`" in done.out
    assert "additive  vjp_depth" in done.out
    # Its name is not taken for removed.
    assert "g@1.0.0" not in done.out
    done = jaxtorch("diff", "--git", "main", "--json")
    assert (done.code, done.json["invalid_before"]) == (1, [])
    assert done.json["invalid"][0]["file"] == "specs/g.yaml"


def test_git_paths_that_never_were(repository, jaxtorch):
    done = jaxtorch("diff", "--git", "main", "spec")
    assert done.code == 2
    assert "`spec` does not exist, nor did it in " in done.err
    Path("specs/g.yaml").unlink()
    done = jaxtorch("diff", "--git", "main", "specs/g.yaml")
    assert done.code == 1
    assert "g@1.0.0 (removed)" in done.out
    done = jaxtorch("diff", "--git", "main", "..")
    assert done.code == 2
    assert "git cannot list `..`" in done.err


def test_git_hidden_files_are_no_contracts_unless_they_are_named(repository, jaxtorch):
    Path(".github").mkdir()
    Path(".github/ci.yaml").write_text("on: [push]\n")
    Path("specs/.local.yaml").write_text("a: 1\n")
    write(".mine/h.yaml", "1.0.0", 2, "h")
    git("add", "-A")
    git("commit", "-m", "Hidden")
    git("branch", "-f", "main")
    for paths in (["."], ["specs"], []):
        assert jaxtorch("diff", "--git", "main", *paths).out == "no changes\n"
    write(".mine/h.yaml", "1.0.0", 1, "h")
    assert jaxtorch("diff", "--git", "main", ".mine").code == 1
    assert jaxtorch("diff", "--git", "main", ".").code == 0


def test_git_along_the_search_path(repository, jaxtorch, monkeypatch):
    Path("pyproject.toml").write_text('[tool.jaxtorch]\nspecs = ["specs"]\n')
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert jaxtorch("diff", "--git", "main").out == "no changes\n"
    write("../specs/f.yaml", "1.0.0", 1)
    Path("../specs/g.yaml").write_text(BROKEN)
    done = jaxtorch("diff", "--git", "main", "--json")
    assert done.code == 1
    assert [one["name"] for one in done.json["contracts"]] == ["f"]
    assert 3 in [one["line"] for one in done.json["invalid"]]
    Path("../specs/g.yaml").unlink()
    assert "g@1.0.0 (removed)" in jaxtorch("diff", "--git", "main").out


def test_git_from_a_folder_below(repository, jaxtorch, monkeypatch):
    write("specs/f.yaml", "1.0.0", 1)
    monkeypatch.chdir("specs")
    assert "f@1.0.0" in jaxtorch("diff", "--git", "main", ".").out


def test_git_an_unknown_commit(repository, jaxtorch):
    done = jaxtorch("diff", "--git", "nothing")
    assert done.code == 2
    assert "git knows no commit `nothing`" in done.err


def test_needs_neither_jax_nor_torch(here, run_python, tmp_path):
    write("old.yaml", "1.0.0", 2)
    old = tmp_path / "old.yaml"
    script = f"""
import sys
sys.argv = ["jaxtorch", "diff", {str(old)!r}, {str(old)!r}]
from jaxtorch_bridge.tools.cli import main
try: main()
except SystemExit as stop: print(stop.code)
print(sorted({{"jax", "torch", "numpy"}} & set(sys.modules)))
"""
    assert run_python(script).splitlines()[-2:] == ["0", "[]"]
