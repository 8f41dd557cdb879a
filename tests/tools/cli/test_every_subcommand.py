"""What holds for every subcommand that the app has: JSON, exit codes, what it does without.

A subcommand that is not in `CASES` is called with what its parameters ask for, and may then
say with 2 that it was called wrongly; one that is there must give the exit codes that it says.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer

from jaxtorch_bridge.tools.cli.app import app

GROUP = typer.main.get_command(app)
NAMES = tuple(GROUP.commands)  # type: ignore[attr-defined]
FRAMEWORKS = ("jax", "torch", "numpy")

FINE = (
    "schema: jaxtorch/1\nname: f\nversion: {version}\nfunction: lib.ops:f\n"
    'inputs: {{x: "float32[n]"}}\noutputs: {{y: "float32[n]"}}\n'
)


@dataclass(frozen=True)
class Case:
    """How to call a subcommand, in a folder as `folder` makes it.

    Attributes:
        fine: Arguments that give 0.
        findings: Arguments that give 1.
        usage: Arguments that give 2.
    """

    fine: str
    findings: str
    usage: str


# Those that need neither JAX nor torch when they are called like this.
CASES = {
    "catalog": Case("catalog good -o site", "catalog bad -o site", "catalog good"),
    "check": Case("check --syntax good", "check --syntax bad", "check --syntax nowhere"),
    "diff": Case("diff good later", "diff good unsaid", "diff good"),
    "migrate": Case("migrate good", "migrate bad", "migrate nowhere"),
    "schema": Case("schema", "schema --check -o good/f.yaml", "schema --check"),
    "stubs": Case("stubs good -o pkg", "stubs bad -o pkg", "stubs good"),
}


# Those that import JAX, torch and functions; what they find depends on the machine.
WITH_FRAMEWORKS = {
    "check": "check good",
    "doctor": "doctor",
    "infer": "infer lib.ops:f --example float32[3]",
    "plan": "plan good/f.yaml --shape n=2",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name, text in {
        "good": FINE.format(version="1.0.0"),
        "later": FINE.format(version="2.0.0") + "vjp_depth: 1\n",
        "unsaid": FINE.format(version="1.0.1") + "vjp_depth: 1\n",
        "bad": "schema: jaxtorch/1\nname: f\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def strictly(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def asked_for(name: str) -> Iterator[str]:
    """Arguments for the parameters that a subcommand asks for."""
    yield name
    for one in GROUP.commands[name].params:  # type: ignore[attr-defined]
        if one.required:
            option = one.param_type_name == "option"
            yield from (one.opts[0], "out") if option else ("good/f.yaml",)


def test_cases_are_of_subcommands():
    assert set(CASES) | set(WITH_FRAMEWORKS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_json_is_an_option_and_help_is_there(jaxtorch, name):
    options = {flag for one in GROUP.commands[name].params for flag in one.opts}  # type: ignore[attr-defined]
    assert "--json" in options
    done = jaxtorch(name, "--help")
    assert (done.code, "--json" in done.out) == (0, True)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_usage_is_2_and_prints_nothing_on_standard_output(jaxtorch, folder, name):
    for flags in ((), ("--json",)):
        done = jaxtorch(*asked_for(name), "--no-such-option", *flags)
        assert (done.code, done.out) == (2, "")
        assert "no-such-option" in done.err


@pytest.mark.parametrize("name", NAMES)
def test_what_it_asks_for_is_enough(jaxtorch, folder, name):
    done = jaxtorch(*asked_for(name), "--json")
    assert done.code in (0, 1, 2)
    if done.code == 2:
        assert (done.out, bool(done.err)) == ("", True)
    else:
        strictly(done.out)


@pytest.mark.parametrize("name", WITH_FRAMEWORKS)
def test_json_of_what_imports_functions(jaxtorch, folder, name):
    done = jaxtorch(*WITH_FRAMEWORKS[name].split(), "--json")
    assert done.code in (0, 1)
    assert strictly(done.out)
    assert jaxtorch(*WITH_FRAMEWORKS[name].split()).code == done.code


@pytest.mark.parametrize("name", NAMES)
def test_a_search_path_that_is_wrong_is_a_finding(jaxtorch, folder, name):
    (folder / "pyproject.toml").write_text("[tool.jaxtorch]\nspecs = 3\n")
    arguments = [*asked_for(name), "--json"]
    if name in CASES:
        arguments = [one for one in f"{CASES[name].fine} --json".split() if one != "good"]
    done = jaxtorch(*arguments)
    # No traceback: the fixture raises what is no exit.
    assert done.code in (0, 1, 2)
    if done.code == 1:
        assert strictly(done.out)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("kind", "code"), [("fine", 0), ("findings", 1), ("usage", 2)])
def test_exit_codes_and_json(jaxtorch, folder, name, kind, code):
    arguments = getattr(CASES[name], kind).split()
    assert jaxtorch(*arguments).code == code
    done = jaxtorch(*arguments, "--json")
    assert done.code == code
    if code == 2:
        assert (done.out, done.err.startswith(("jaxtorch: ", "Usage: "))) == ("", True)
    else:
        assert strictly(done.out)
        assert done.err == ""


WITHOUT = """
import sys
for name in {frameworks!r}:
    sys.modules[name] = None  # importing it fails
from jaxtorch_bridge.tools.cli import main
for arguments in {calls!r}:
    sys.argv = ["jaxtorch", *arguments]
    try:
        main()
    except SystemExit as stop:
        print("exit", stop.code)
"""


def without_frameworks(*calls: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(frameworks=FRAMEWORKS, calls=calls)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


def test_help_without_jax_and_torch(folder):
    done = without_frameworks([], ["--version"], *([name, "--help"] for name in NAMES))
    assert (done.returncode, done.stderr) == (0, "")
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert codes == ["exit 2", *["exit 0"] * (1 + len(NAMES))]


@pytest.mark.parametrize("name", CASES)
def test_without_jax_and_torch(folder, name):
    """That they are not even looked for, and that the answers are the same without them."""
    case = CASES[name]
    done = without_frameworks(*([*one.split(), "--json"] for one in (case.fine, case.findings)))
    assert (done.returncode, done.stderr) == (0, "")
    fine, findings, rest = re.split(r"^exit [01]\n", done.stdout, flags=re.MULTILINE)
    assert strictly(fine)
    assert strictly(findings)
    assert (rest, done.stdout.endswith("exit 1\n")) == ("", True)


def test_reading_contracts_imports_nothing_that_it_does_not_use(folder):
    """What starts slowly: other subcommands need these, or help and colours do."""
    calls = [CASES[name].fine.split() for name in ("check", "diff", "schema")]
    script = WITHOUT.format(frameworks=(), calls=calls) + "print(sorted(sys.modules))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    imported = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    others = {"jinja2", "jsonschema", "rich", "ruamel", "jaxtyping", "asyncio", "unittest"}
    assert (others | set(FRAMEWORKS)) & imported == set()


def test_what_needs_jax_and_torch_says_so_where_they_are_not(folder):
    calls = [*WITH_FRAMEWORKS.values(), "catalog good -o site --plans"]
    done = without_frameworks(*([*one.split(), "--json"] for one in calls))
    assert done.returncode == 0, done.stderr
    pieces = re.split(r"^exit ([012])\n", done.stdout, flags=re.MULTILINE)
    printed, codes = dict(zip(calls, pieces[::2], strict=False)), pieces[1::2]
    assert codes == ["1" if one == "doctor" else "2" for one in calls]
    assert strictly(printed.pop("doctor"))
    assert set(printed.values()) == {""}
    assert "Traceback" not in done.stderr
    assert done.stderr.count("jaxtorch: this needs the package `") == len(calls) - 1
    assert not (folder / "site").exists()


def test_odd_names_and_poor_locales_end_in_no_traceback(folder):
    odd = os.fsencode(folder / "bad") + "/\udcff\u00e9.yaml".encode("utf-8", "surrogateescape")
    with open(odd, "w", encoding="utf-8") as stream:
        stream.write("schema: jaxtorch/1\nname: '\u00e9 \U0001f600'\n")
    calls = [["check", "--syntax", "bad"], ["check", "--syntax", "bad", "--json"]]
    for encoding in ("ascii:strict", "utf-8:strict"):
        done = without_frameworks(*calls, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        text, as_json, rest = done.stdout.split("exit 1\n")
        assert "2 files, 7 problems" in text
        assert len(strictly(as_json)["problems"]) == 7
        assert rest == ""
