"""Files that are no contracts, or that cannot be read: an error with words, and nothing waits."""

from __future__ import annotations

import os

import pytest

from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.files.contract_files import contract_files, label_in
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_all_files import check_files
from jaxtorch_bridge.spec.files.read_contract import read_bytes

HEAD = "schema: jaxtorch/1\nname: f\nversion: 1.0.0\n"
SMALL = HEAD + "inputs: {x: 'int8[n]'}\noutputs: {y: 'int8[n]'}\n"


def problems_of(text, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(file)
    return [str(one).removeprefix(f"{file}:") for one in caught.value.problems]


@pytest.mark.parametrize(
    ("field", "place", "words"),
    [
        ("{dtyp: int8, shape: [n]}", "4:14: `inputs.x.dtyp`", "(did you mean `dtype`?)"),
        ("{dtype: int8, shpe: [n]}", "4:27: `inputs.x.shpe`", "(did you mean `shape`?)"),
        ("{dtype: int8, shape: [n], dox: a}", "4:39: `inputs.x.dox`", "(did you mean `doc`?)"),
        ("{dtype: {liek: z}, shape: [n]}", "4:21: `inputs.x.dtype`", "`{like: x}`"),
        ("{dtype: [int8, imt16], shape: [n]}", "4:28: `inputs.x.dtype.1`", "mean `int16`"),
    ],
)
def test_misspelt_fields_of_arrays(tmp_path, field, place, words):
    found = problems_of(HEAD + f"inputs: {{x: {field}}}\noutputs: {{y: 'int8[n]'}}\n", tmp_path)
    (line,) = [one for one in found if one.startswith(place)]
    assert words in line


def test_a_group_may_hold_an_array_called_shape(tmp_path):
    (tmp_path / "c.yaml").write_text(SMALL.replace("'int8[n]'}", "{shape: 'int8[n]'}}", 1))
    assert [path for path, _ in load_spec(tmp_path / "c.yaml").input_leaves()] == [("x", "shape")]


@pytest.mark.parametrize(
    "name", ["ﬁ", "__debug__", "a-b", "1a", "class", "a b", "a.b", "", "None", "a\u200b"]
)
@pytest.mark.parametrize("part", ["inputs", "static", "outputs"])
def test_names_that_no_parameter_can_have(name, part):
    data = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    data |= {"inputs": {}, "static": {}, "outputs": {"y": "int8[]"}}
    data[part] = {**data[part], name: 1 if part == "static" else "int8[]"}
    with pytest.raises(SpecError, match=r"expected an? (Python )?(identifier|name)"):
        load_spec(data)


def test_pipes_among_the_contracts_are_not_waited_for(tmp_path):
    (tmp_path / "good.yaml").write_text(SMALL)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert list(contract_files([str(tmp_path)])) == [str(tmp_path / "good.yaml")]


def test_broken_links_are_said(tmp_path):
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere.yaml")
    count, problems = check_files([str(tmp_path)])
    assert count == 1
    assert "gone.yaml: expected a readable file; got No such file or directory" in str(problems[0])


def test_files_of_no_permission(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    file.write_text(SMALL)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, for whom every file is readable.
    monkeypatch.setattr("builtins.open", refuse)
    for read in (load_spec, read_bytes):
        with pytest.raises(SpecError, match=r"c\.yaml: expected a readable file; got Permission"):
            read(str(file))


def test_names_are_looked_up_in_large_files_without_reading_them_whole(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_text(SMALL)
    with open(file, "r+b") as stream:
        stream.truncate(1 << 33)
    assert label_in(str(file)) in (("f", "1.0.0"), None)
    assert len(read_bytes(str(file))) <= (1 << 20) + 1


def test_folders_are_no_files(tmp_path):
    with pytest.raises(SpecError, match="expected a readable file; got Is a directory"):
        load_spec(tmp_path)
