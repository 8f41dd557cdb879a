from __future__ import annotations

from pathlib import Path

import pytest

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
    "arguments", [(), ("--syntax", "nowhere"), ("--syntax", "--json", "--format", "github")]
)
def test_wrong_usage(here, jaxtorch, arguments):
    done = jaxtorch("check", *arguments)
    assert done.code == 2
    assert done.err.startswith("jaxtorch: ")


def test_the_contracts_of_this_repository(jaxtorch):
    assert jaxtorch("check", "--syntax", Path(__file__).parents[2] / "specs").code == 0
