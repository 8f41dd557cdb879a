from __future__ import annotations

import html
import os
import sys
from pathlib import Path

import pytest

CONTRACT = (
    "schema: jaxtorch/1\nname: {name}\nversion: {version}\n"
    'inputs: {{x: "float32[n]"}}\noutputs: {{y: "float32[n]"}}\n'
)


def write(folder: Path, name: str, version: str = "1.0.0") -> None:
    (folder / f"{name}-{version}.yaml").write_text(CONTRACT.format(name=name, version=version))


@pytest.fixture
def specs(tmp_path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    write(folder, "f")
    return folder


@pytest.fixture
def site(tmp_path) -> Path:
    return tmp_path / "site"


def test_writes_once_and_then_finds_it_up_to_date(jaxtorch, specs, site):
    first = jaxtorch("catalog", specs, "-o", site)
    assert (first.code, "index.html: written" in first.out) == (0, True)
    assert "1 contract, 1 version\n" in first.out
    page = site / "index.html"
    before = page.stat().st_mtime_ns
    second = jaxtorch("catalog", specs, "-o", site)
    assert (second.code, "up to date" in second.out) == (0, True)
    assert page.stat().st_mtime_ns == before
    assert jaxtorch("catalog", specs, "-o", site, "--check").code == 0
    assert [one.name for one in site.iterdir()] == ["index.html"]


def test_check_writes_nothing(jaxtorch, specs, site):
    missing = jaxtorch("catalog", specs, "-o", site, "--check")
    assert (missing.code, "missing; run" in missing.out, site.exists()) == (1, True, False)
    jaxtorch("catalog", specs, "-o", site)
    before = (site / "index.html").read_bytes()
    write(specs, "g")
    stale = jaxtorch("catalog", specs, "-o", site, "--check")
    assert (stale.code, "out of date; run" in stale.out) == (1, True)
    assert (site / "index.html").read_bytes() == before


def test_line_ends_of_windows_are_no_difference(jaxtorch, specs, site):
    jaxtorch("catalog", specs, "-o", site)
    page = site / "index.html"
    assert b"\r" not in page.read_bytes()
    page.write_bytes(page.read_bytes().replace(b"\n", b"\r\n"))
    assert jaxtorch("catalog", specs, "-o", site, "--check").code == 0


def test_json(jaxtorch, specs, site):
    write(specs, "f", "1.0.1")
    done = jaxtorch("catalog", specs, "-o", site, "--json")
    assert (done.code, done.json["state"]) == (0, "written")
    assert done.json["page"] == (site / "index.html").as_posix()
    (one,) = done.json["contracts"]
    assert (one["name"], one["versions"], one["function"]) == ("f", ["1.0.1", "1.0.0"], None)
    assert one["problems"] == []


def test_a_version_that_does_not_say_what_changed_is_noted(jaxtorch, specs, site):
    (specs / "later.yaml").write_text(CONTRACT.format(name="f", version="1.1.0") + "vjp_depth: 0\n")
    done = jaxtorch("catalog", specs, "-o", site)
    assert done.code == 0
    assert "note: f 1.0.0 -> 1.1.0: " in done.out
    assert "need 2.0.0 or later" in done.out


def test_a_page_of_somebody_else_is_left_alone(jaxtorch, specs, site):
    site.mkdir()
    page = site / "index.html"
    page.write_text("<!doctype html>\n<p>mine</p>\n")
    for flags in ((), ("--check",), ("--json",)):
        done = jaxtorch("catalog", specs, "-o", site, *flags)
        assert done.code == 1
    assert "foreign" in done.out
    assert page.read_text() == "<!doctype html>\n<p>mine</p>\n"


def test_findings_in_contracts_write_nothing(jaxtorch, specs, site):
    (specs / "bad.yaml").write_text("schema: jaxtorch/1\nname: g\n")
    done = jaxtorch("catalog", specs, "-o", site)
    assert (done.code, site.exists()) == (1, False)
    assert f"{specs}/bad.yaml" in done.err
    assert jaxtorch("catalog", specs, "-o", site, "--json").json["problems"]


def test_a_failed_write_leaves_the_old_page_whole(jaxtorch, specs, site, monkeypatch):
    jaxtorch("catalog", specs, "-o", site)
    before = (site / "index.html").read_bytes()
    write(specs, "g")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    done = jaxtorch("catalog", specs, "-o", site)
    assert (done.code, "No space left" in done.err) == (2, True)
    assert (site / "index.html").read_bytes() == before
    assert [one.name for one in site.iterdir()] == ["index.html"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("catalog", "nowhere", "-o", "site"), "nowhere"),
        (("catalog", "specs"), "out"),
        (("catalog", "specs", "-o", "specs/f-1.0.0.yaml"), "expected a folder"),
    ],
)
def test_wrong_usage(jaxtorch, specs, monkeypatch, arguments, word):
    monkeypatch.chdir(specs.parent)
    done = jaxtorch(*arguments)
    assert (done.code, word in done.err) == (2, True)


def test_without_jinja_the_message_says_what_to_install(run_python, specs, site):
    script = (
        f"import sys; sys.argv = ['jaxtorch', 'catalog', {str(specs)!r}, '-o', {str(site)!r}]\n"
        "sys.modules['jinja2'] = None\n"
        "from jaxtorch_bridge.tools.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code)\n"
    )
    text = run_python(script, check=False)
    assert text.startswith("2\n")
    assert 'catalog needs the package jinja2, which is not installed. Run: pip install "' in text


CODE = """
def fine(x):
    print("on standard output")
    return x * 2

def other(x):
    return x[None]
"""


def test_plans_say_what_jax_will_do_with_the_functions(jaxtorch, specs, site, monkeypatch):
    monkeypatch.chdir(specs.parent)
    (specs.parent / "catalog_plans.py").write_text(CODE)
    for name, version, function in (
        ("fine", "1.0.0", "no_such_module:old"),
        ("fine", "1.1.0", "catalog_plans:fine"),
        ("other", "1.0.0", "catalog_plans:other"),
    ):
        text = CONTRACT.format(name=name, version=version) + f"function: {function}\n"
        (specs / f"{name}-{version}.yaml").write_text(text)
    monkeypatch.delitem(sys.modules, "catalog_plans", raising=False)
    done = jaxtorch("catalog", specs, "-o", site, "--plans", "--json")
    assert done.code == 0
    fine, free, other = (one["plan"] for one in sorted(done.json["contracts"], key=by_function))
    assert fine["verdict"].startswith("contract and function agree, in ")
    assert "gradient" in dict(fine["remarks"])
    assert other["verdict"].startswith("1 problem, in ")
    assert "outputs.y" in other["problems"][0]
    assert free is None
    page = html.unescape((site / "index.html").read_text())
    for words in ("Plans, by the function", fine["verdict"], dict(fine["remarks"])["vmap"]):
        assert words in page
    assert jaxtorch("catalog", specs, "-o", site, "--plans", "--check").code == 0
    assert jaxtorch("catalog", specs, "-o", site, "--check").code == 1


def by_function(contract):
    return ("catalog_plans:fine", None, "catalog_plans:other").index(contract["function"])
