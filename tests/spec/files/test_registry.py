from __future__ import annotations

from pathlib import Path

import pytest

from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.registry import find_spec

TEXT = "schema: jaxtorch/1\nname: {}\nversion: {}\ninputs:\n  x: float32[n]\noutputs:\n  y: {}[n]\n"


def write(path: Path, name: str, version: str, dtype: str = "float32") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT.format(name, version, dtype))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXTORCH_SPECS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.jaxtorch]\nspecs = ["specs"]\n')
    for version in ("1.0.0", "2.1.0", "2.1.9", "2.10.0", "3.0.0"):
        write(tmp_path / f"specs/attention-{version}.yaml", "attention", version)
    write(tmp_path / "specs/deeper/norm.yml", "lib.norm", "0.3.1")
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("attention@2", "2.10.0"),
        ("attention@2.1", "2.1.9"),
        ("attention@2.1.0", "2.1.0"),
        ("attention@3", "3.0.0"),
        ("lib.norm@0", "0.3.1"),
    ],
)
def test_the_newest_that_fits(project, reference, version):
    assert load_spec(reference).version == version


def test_from_a_folder_below(project, monkeypatch):
    (project / "src/lib").mkdir(parents=True)
    monkeypatch.chdir(project / "src/lib")
    # A file of another tool does not hide the project's.
    Path("pyproject.toml").write_text("[tool.other]\n")
    spec = load_spec("attention@1")
    assert spec.label == "attention@1.0.0"
    assert "attention-1.0.0.yaml" in spec.where("inputs")


def test_near_the_caller_before_the_current_folder(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_spec("attention@1", near=str(project)).version == "1.0.0"
    with pytest.raises(SpecError, match=r"\[tool.jaxtorch\] in pyproject.toml"):
        load_spec("attention@1")


def test_the_variable_wins(project, monkeypatch):
    write(project / "more/a.yaml", "attention", "2.99.0")
    monkeypatch.setenv("JAXTORCH_SPECS", "more")
    assert load_spec("attention@2").version == "2.99.0"
    monkeypatch.setenv("JAXTORCH_SPECS", "nowhere")
    with pytest.raises(SpecError, match=r"`?JAXTORCH_SPECS`? says; got no such folder"):
        load_spec("attention@2")


def test_the_argument_wins_over_all(project):
    write(project / "more/a.yaml", "attention", "2.99.0")
    assert find_spec("attention@2", ("more",)).version == "2.99.0"


def test_a_path_that_exists_wins(project):
    write(project / "attention@2", "other", "7.0.0")
    assert load_spec("attention@2").label == "other@7.0.0"


def test_unknown_names_say_what_is_there(project):
    with pytest.raises(
        SpecError, match=r"one of `attention`, `lib.norm` .did you mean `attention`"
    ):
        load_spec("atention@2")
    with pytest.raises(SpecError, match=r"versions `1.0.0`, `2.1.0`, .*`3.0.0` of `attention`"):
        load_spec("attention@4")


def test_a_name_without_version_is_explained(project):
    with pytest.raises(SpecError, match=r"write `attention@3` for its newest 3.x"):
        load_spec("attention")
    with pytest.raises(SpecError, match=r"No such file"):
        load_spec("nothing")


def test_one_version_twice(project):
    write(project / "specs/copy.yaml", "attention", "3.0.0")
    assert load_spec("attention@3").version == "3.0.0"
    write(project / "specs/copy.yaml", "attention", "3.0.0", "float64")
    with pytest.raises(SpecError) as caught:
        load_spec("attention@3")
    assert "specs/attention-3.0.0.yaml" in str(caught.value)
    assert "specs/copy.yaml" in str(caught.value)
    assert load_spec("attention@2").version == "2.10.0"


def test_files_written_in_another_way_are_found(project):
    flow = (
        '{schema: jaxtorch/1, name: flow, version: "1.0.0", '
        'inputs: {x: "int8[]"}, outputs: {y: "int8[]"}}'
    )
    (project / "specs/flow.yaml").write_text(flow)
    (project / "specs/broken.yaml").write_text("name: [")
    assert load_spec("flow@1").label == "flow@1.0.0"


def test_an_invalid_file_says_what_is_wrong(project):
    (project / "specs/bad.yaml").write_text("name: bad\nversion: 1.0.0\nsize: 3\n")
    with pytest.raises(SpecError, match=r"specs/bad.yaml:3:1: `size`"):
        load_spec("bad@1")


@pytest.mark.parametrize("table", ["specs = 3", 'specs = ["nowhere"]', "specs = ["])
def test_a_table_that_is_wrong(project, table):
    (project / "pyproject.toml").write_text(f"[tool.jaxtorch]\n{table}\n")
    with pytest.raises(SpecError, match=r"pyproject.toml|nowhere"):
        load_spec("attention@2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[tool.jaxtorch]\nspec = ['specs']\n", r"did you mean `specs`\?\); got `spec`"),
        (b"[tool]\njaxtorch = 3\n", r"expected \[tool.jaxtorch\] as a table; got 3"),
        (b"[tool.jaxtorch]\nspecs = [x]\n", r"pyproject.toml:2:10: expected a readable TOML"),
        (b"[tool.jaxtorch]\nspecs = ['\xe9']\n", r"pyproject.toml:2:11: .*got the byte 0xe9"),
    ],
)
def test_mistakes_in_the_table_have_places(project, text, message):
    (project / "pyproject.toml").write_bytes(text)
    with pytest.raises(SpecError, match=message):
        load_spec("attention@2")


def test_the_decorator_takes_names(project):
    torch = pytest.importorskip("torch")
    from jaxtorch_bridge import jax_callable

    assert jax_callable(torch.neg, spec="attention@2").spec.version == "2.10.0"
    assert jax_callable(lambda x: -x, spec="attention@2.1").spec.version == "2.1.9"
