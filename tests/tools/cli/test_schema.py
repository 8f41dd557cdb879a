from __future__ import annotations

import json

from jaxtorch_bridge.spec.files.json_schema import contract_schema


def test_printed(jaxtorch):
    for arguments in ((), ("--json",)):
        done = jaxtorch("schema", *arguments)
        assert (done.code, done.json) == (0, contract_schema())


def test_written_and_checked(jaxtorch, tmp_path):
    file = tmp_path / "s.json"
    assert jaxtorch("schema", "-o", file, "--check").code == 1
    assert not file.exists()
    assert jaxtorch("schema", "-o", file).code == 0
    assert json.loads(file.read_text()) == contract_schema()
    assert jaxtorch("schema", "-o", file, "--check").code == 0
    file.write_text("{}")
    done = jaxtorch("schema", "-o", file, "--check", "--json")
    assert (done.code, done.json["up_to_date"]) == (1, False)
    assert file.read_text() == "{}"


def test_wrong_usage(jaxtorch, tmp_path):
    assert jaxtorch("schema", "--check").code == 2
    done = jaxtorch("schema", "-o", tmp_path / "nowhere" / "s.json")
    assert done.code == 2
    assert "cannot be written" in done.err
