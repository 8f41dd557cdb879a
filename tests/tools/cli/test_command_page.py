"""The transcripts of docs/command.md: each `$ jaxtorch ...` prints what follows it."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

PAGE = (Path(__file__).parents[3] / "docs" / "command.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SESSIONS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_transcripts(jaxtorch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES:
        Path(name).write_text(text)
    assert SESSIONS
    for session in SESSIONS:
        for run in session.split("$ jaxtorch ")[1:]:
            command, _, expected = run.partition("\n")
            printed = jaxtorch(*shlex.split(command)).out
            same = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
            assert same, f"jaxtorch {command} printed\n{printed}"


def test_every_subcommand_is_on_the_page(jaxtorch):
    from jaxtorch_bridge.tools.cli.app import app

    for command in app.registered_commands:
        assert f"## `jaxtorch {command.name}`" in PAGE
