from __future__ import annotations

from pathlib import Path

import pytest

from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.files import format_versions as formats
from jaxtorch_bridge.spec.files.atomic_write import write_whole
from jaxtorch_bridge.spec.files.load import load_spec

OLD = """\
# The first line.
schema: jaxtorch/0
name: f        # a short name
version: 1.0.0
arguments:     # what comes in
  x: "float32[n]"
  # between
  y: {shape: "[n]", dtype: bool}

outputs:
  - z: float32[n]
"""
OLD = OLD.replace("  - z", "  z")
NEW = OLD.replace("jaxtorch/0", "jaxtorch/1").replace("arguments:     #", "inputs:        #")


@pytest.fixture
def older_format(monkeypatch, tmp_path):
    """A format 0 that exists in these tests alone: `inputs` was `arguments`."""
    monkeypatch.setitem(
        formats.MIGRATIONS, 0, lambda data: formats.rename(data, "arguments", "inputs")
    )
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(OLD)


@pytest.mark.parametrize("number", ["2", "17"])
def test_a_format_newer_than_the_library(tmp_path, number):
    file = tmp_path / "c.yaml"
    file.write_text(f"name: f\nschema: jaxtorch/{number}\ninputs: of another kind\n")
    with pytest.raises(SpecError, match=f"c.yaml:2:9: `schema`: .*got `jaxtorch/{number}`") as it:
        load_spec(file)
    assert len(it.value.problems) == 1
    assert "install a newer jaxtorch-bridge" in str(it.value)
    with pytest.raises(SpecError, match="install a newer"):
        load_spec({"schema": f"jaxtorch/{number}"})


def test_a_format_that_never_was():
    with pytest.raises(SpecError, match="`schema`: expected `jaxtorch/1`; got `jaxtorch/0`"):
        load_spec({"schema": "jaxtorch/0", "name": "f", "version": "1.0.0"})


def test_an_older_format_is_migrated_on_load(older_format):
    spec = load_spec("old.yaml")
    assert (list(spec.inputs), spec.schema_id) == (["x", "y"], "jaxtorch/1")
    data = {"schema": "jaxtorch/0", "name": "f", "version": "1.0.0", "arguments": {}}
    data["outputs"] = {"z": "int8[]"}
    before = dict(data)
    assert load_spec(data).schema_id == "jaxtorch/1"
    assert data == before


def test_an_error_in_an_older_format_has_a_place(older_format):
    Path("old.yaml").write_text(OLD.replace("z: float32", "z: float33"))
    with pytest.raises(SpecError, match=r"old.yaml:11:6: `outputs.z`"):
        load_spec("old.yaml")


def test_rewritten_with_comments(older_format, jaxtorch):
    spec = load_spec("old.yaml")
    done = jaxtorch("migrate", "--check", ".")
    assert (done.code, Path("old.yaml").read_text()) == (1, OLD)
    done = jaxtorch("migrate", ".", "--json")
    assert (done.code, done.json["migrated"]) == (
        0,
        [{"file": "./old.yaml", "from": "jaxtorch/0", "to": "jaxtorch/1"}],
    )
    text = Path("old.yaml").read_text()
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        " ".join(line.split()) for line in NEW.splitlines()
    ]
    assert load_spec("old.yaml") == spec
    done = jaxtorch("migrate", ".")
    assert (done.code, done.out) == (0, "1 file, none of an older format\n")
    assert Path("old.yaml").read_text() == text


def test_a_file_that_is_not_valid_stays(older_format, jaxtorch):
    text = OLD + "size: 3\n"
    Path("old.yaml").write_text(text)
    done = jaxtorch("migrate", "old.yaml")
    assert done.code == 1
    assert "old.yaml:12:1: `size`" in done.err
    assert Path("old.yaml").read_text() == text


def test_files_that_are_not_valid_keep_no_other_from_being_rewritten_and_told(
    older_format, jaxtorch
):
    Path("bad.yaml").write_text("a: \0")
    Path("worse.yaml").write_bytes(b"a: \xff")
    done = jaxtorch("migrate", ".", "--json")
    assert done.code == 1
    assert [one["file"] for one in done.json["migrated"]] == ["./old.yaml"]
    places = [(one["file"], one["line"], one["column"]) for one in done.json["problems"]]
    assert places == [("./bad.yaml", 1, 4), ("./worse.yaml", 1, 4)]
    assert load_spec("old.yaml").label == "f@1.0.0"
    assert "jaxtorch/1" in Path("old.yaml").read_text()


WORDS = """\
schema: jaxtorch/1
name: f
version: 1.0.0
# How calls meet.
concurrency: "replicated"  # as they were
inputs: {x: "float32[n]"}
outputs: {z: "float32[n]"}
"""


def test_words_that_are_gone_are_refused_and_rewritten_with_comments(tmp_path, jaxtorch):
    file = tmp_path / "c.yaml"
    file.write_text(WORDS)
    with pytest.raises(SpecError, match=r"`replicated`, which is `locked` now.*jaxtorch migrate"):
        load_spec(file)
    done = jaxtorch("migrate", "--check", str(file))
    assert (done.code, file.read_text()) == (1, WORDS)
    assert "concurrency: replicated is older than concurrency: locked" in done.out
    done = jaxtorch("migrate", str(file), "--json")
    change = {"from": "concurrency: replicated", "to": "concurrency: locked"}
    assert (done.code, done.json["migrated"]) == (0, [{"file": str(file), **change}])
    assert load_spec(file).concurrency == "locked"
    # ruamel keeps the comment in its column.
    assert file.read_text().split() == WORDS.replace("replicated", "locked").split()
    assert jaxtorch("migrate", str(file)).out == "1 file, none of an older format\n"


def test_words_that_are_gone_in_a_file_of_an_older_format(older_format, jaxtorch):
    Path("old.yaml").write_text(OLD + "concurrency: replicated\n")
    done = jaxtorch("migrate", "old.yaml", "--json")
    assert [one["to"] for one in done.json["migrated"]] == ["jaxtorch/1", "concurrency: locked"]
    assert load_spec("old.yaml").concurrency == "locked"


def test_residuals_that_were_saved_are_a_tape_now(tmp_path, jaxtorch):
    file = tmp_path / "c.yaml"
    text = WORDS.replace('concurrency: "replicated"', "residuals: save")
    file.write_text(text)
    with pytest.raises(SpecError, match=r"c.yaml:5:12: .*`save`, which is `tape` now") as caught:
        load_spec(file)
    assert "jaxtorch migrate" in str(caught.value)
    done = jaxtorch("check", str(file))
    assert done.code == 1
    assert "`save`, which is `tape` now" in done.out + done.err
    assert jaxtorch("migrate", str(file)).code == 0
    assert file.read_text().split() == text.replace("save", "tape").split()
    assert load_spec(file).residuals == "tape"


@pytest.mark.parametrize("value", ["[replicated]", "{replicated: 1}", "3"])
def test_what_is_no_word_is_an_error_as_before(tmp_path, value, jaxtorch):
    file = tmp_path / "c.yaml"
    file.write_text(WORDS.replace('"replicated"', value))
    done = jaxtorch("migrate", str(file))
    assert done.code == 1
    assert "`concurrency`: expected" in done.err


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    import os

    file = tmp_path / "c.yaml"
    file.write_text("old")
    file.chmod(0o640)

    def fails(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="disk full"):
            write_whole(str(file), "new")
    assert (file.read_text(), [one.name for one in tmp_path.iterdir()]) == ("old", ["c.yaml"])
    write_whole(str(file), "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o640)


def test_the_backend_that_runs_a_graph_has_another_name_now(tmp_path, jaxtorch):
    file = tmp_path / "c.yaml"
    text = WORDS.replace("replicated", "locked") + "execution: {outputs: copy, backend: %s}\n"
    file.write_text(text % "aot")
    with pytest.raises(SpecError, match=r"8:37.*`aot`, which is `graph` now.*jaxtorch migrate"):
        load_spec(file)
    assert jaxtorch("migrate", str(file)).code == 0
    assert load_spec(file).execution.backend == "graph"
    assert "# as they were" in file.read_text()
