"""The page in a browser: search by keyboard, a phone's width, both colour schemes, no network."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml

from jaxtorch_bridge.tools.catalog.collect import collect
from jaxtorch_bridge.tools.catalog.page import render
from jaxtorch_bridge.tools.catalog.view import views_of

ENTER, ESCAPE, UP, DOWN, TAB = "\ue007", "\ue00c", "\ue013", "\ue015", "\ue004"
PHONE = 360
BREAK = "document.title='broken'"
HOSTILE = f'</script><script>{BREAK}</script><img src=x onerror="{BREAK}">'

ATTENTION = {
    "doc": "Scaled dot-product attention.",
    "function": "mylib.ops:attention",
    "inputs": {
        "q": "float32[batch, heads, seq, dim]",
        "mask": {"shape": "[batch, seq]", "dtype": "bool", "optional": True, "doc": HOSTILE},
    },
    "static": {"causal": False},
    "outputs": {"out": "float32[batch, heads, seq, dim]"},
    "sharding": {"heads": "model"},
}
# As wide as contracts get: nothing in them may widen the page.
WIDE = {
    "doc": "w" * 2000,
    "function": f"{'very_long_package_name.' * 8}ops:function",
    "inputs": {"x" * 150: "float32[" + ", ".join(f"dimension_{i}" for i in range(12)) + "]"},
    "static": {"mode": "m" * 300},
    "outputs": {"y": "float32[" + " * ".join(["dimension_0"] * 30) + "]"},
    "constraints": [" + ".join(["dimension_1"] * 30) + " > 0"],
    "sharding": {"dimension_2": "a" * 200},
}
SMALL = {"inputs": {"x": "bfloat16[n]"}, "outputs": {"y": "bfloat16[n]"}}
# Also names that a page or a browser has for something else.
NAMES = ("document", "location", "nothing", "norm")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Six contracts: attention in three versions, wide in eight, and four small ones."""
    folder = tmp_path_factory.mktemp("page")
    specs = folder / "specs"
    specs.mkdir()
    for count, version in enumerate(("1.0.0", "2.0.0", "2.1.0")):
        limited = {} if count == 0 else {"vjp_depth": count}
        write(specs, "attention", version, {**ATTENTION, **limited})
    for minor in range(8):
        write(specs, "wide" + ".part" * 20, f"1.{minor}.0", {**WIDE, "verify": minor % 2 == 0})
    for name in NAMES:
        write(specs, name, "1.0.0", SMALL)
    path = folder / "index.html"
    path.write_text(render(views_of(collect([str(specs)])), "All contracts"), encoding="utf-8")
    return path


def write(specs: Path, name: str, version: str, fields: dict[str, object]) -> None:
    data = {"schema": "jaxtorch/1", "name": name, "version": version, **fields}
    (specs / f"{name[:20]}-{version}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def test_it_works_from_a_disk_and_asks_for_nothing_else(window, page):
    window.open(page)
    assert window.run("return document.title") == "All contracts"
    assert window.driver.get_log("browser") == []
    messages = [
        json.loads(one["message"])["message"] for one in window.driver.get_log("performance")
    ]
    requests = {
        one["params"]["request"]["url"].partition("#")[0]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    }
    assert requests == {page.as_uri()}


def test_markup_in_a_contract_is_text(window, page):
    window.open(page)
    docs = window.run(
        "return [...document.querySelectorAll('dd .doc')].map((one) => one.textContent)"
    )
    assert HOSTILE in docs
    assert window.run("return document.images.length + document.scripts.length") == 1


def test_the_policy_stops_markup_that_got_in_all_the_same(window, page, tmp_path):
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    broken.write_text(text.replace("</main>", f"{HOSTILE}</main>"), encoding="utf-8")
    window.open(broken)
    assert window.run("return document.title") == "All contracts"
    logged = " ".join(one["message"] for one in window.driver.get_log("browser"))
    assert "Content Security Policy" in logged


@pytest.mark.parametrize("width", [1280, PHONE])
def test_search_by_keyboard(window, page, width):
    window.open(page, width=width)
    everything = window.shown
    assert len(everything) == len(window.listed) == 6
    window.press("/", "dim:heads causal")
    assert window.focused == "page-search"
    assert window.shown == window.listed == ["attention"]
    assert window.run("return document.getElementById('page-found').value") == "1 of 6"
    window.press(ESCAPE, "no such thing")
    assert window.shown == []
    assert window.run("return document.getElementById('page-nothing').checkVisibility()")
    window.press(ESCAPE)
    assert window.shown == everything
    window.press("DTYPE:bfloat16")
    assert window.shown == ["document", "location", "norm", "nothing"]
    steps = []
    for key in (DOWN, DOWN, DOWN, DOWN, DOWN, UP, UP, UP, UP):
        window.press(key)
        steps.append(window.focused)
    down = ["#document", "#location", "#norm", "#nothing", "#nothing"]
    assert steps == [*down, "#norm", "#location", "#document", "page-search"]
    window.press(ENTER)
    assert window.focused == "#document"
    top = window.run("return document.getElementById('document').getBoundingClientRect().top")
    bar = window.run("return document.querySelector('.top').getBoundingClientRect().bottom")
    assert bar <= top <= 300
    window.press("/")
    assert window.focused == "page-search"
    assert window.run("return getSelection().toString()") == "DTYPE:bfloat16"


def test_a_slash_can_be_searched_for(window, page):
    window.open(page)
    window.press("/", "a/b")
    assert window.run("return document.getElementById('page-search').value") == "a/b"


TOO_WIDE = """
return [...document.querySelectorAll('body *')]
  .filter((one) => !one.closest('.scroll table, pre code'))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 80));
"""


def test_a_phone_scrolls_one_way_only(window, page):
    for fragment in ("", "#attention", "#attention@1.0.0"):
        window.open(page, fragment, width=PHONE)
        window.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert window.run("return innerWidth") == PHONE
        assert window.run("return document.documentElement.scrollWidth") == PHONE
        assert window.run(TOO_WIDE) == []
    # What is wider scrolls in a box of its own, which the keyboard reaches.
    boxes = "document.querySelectorAll('.scroll, pre')"
    assert window.run(f"return [...{boxes}].every((one) => one.tabIndex === 0)")
    assert window.run(f"return [...{boxes}].some((one) => one.scrollWidth > one.clientWidth)")


def test_a_link_to_an_older_version_unfolds_it(window, page):
    window.open(page, "#attention@1.0.0")
    opened = "return document.getElementById('attention@1.0.0').open"
    assert window.run(opened)
    window.open(page)
    assert not window.run(opened)
    window.press("/", "norm")
    assert window.shown == ["norm"]
    window.run("location.hash = '#attention@1.0.0'")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(window.driver, 60).until(lambda _: window.run(opened))
    assert len(window.shown) == 6
    window.open(page, "#%")
    assert window.driver.get_log("browser") == []


def test_what_differs_between_versions_can_be_shown_alone(window, page):
    window.open(page)
    rows = (
        "return [...document.querySelectorAll('#attention tbody tr')]"
        ".filter((one) => one.checkVisibility()).map((one) => one.firstElementChild.textContent)"
    )
    assert window.run(rows) == ["vjp_depth"]
    levels = (
        "return [...document.querySelectorAll('#attention td.changed .level')]"
        ".map((one) => one.textContent)"
    )
    assert window.run(levels) == ["breaking", "additive"]
    window.run("document.querySelector('#attention .only input').click()")
    assert {"input q", "output out", "static causal", "vjp_depth"} <= set(window.run(rows))


CONTRAST = """
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = numbers(color).map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const color = getComputedStyle(one).backgroundColor;
    if ((numbers(color)[3] ?? 1) > 0) return color;
  }
};
for (const one of document.querySelectorAll('details')) one.open = true;
const texts = [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()
  && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
return texts.map((one) => {
  const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(window, page, scheme):
    window.open(page)
    window.media("prefers-color-scheme", scheme)
    found = window.run(CONTRAST)
    assert len(found) > 100
    assert [one for one in found if one[0] < 4.5] == []
    lightness = window.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, lightness[4:-1].split(","))) < 64) == (scheme == "dark")


def test_assistive_technology_finds_its_way(window, page):
    window.open(page)
    nodes = window.command("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            role = node["role"]["value"]
            roles.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert roles["searchbox"] == ["Search"]
    assert roles["navigation"] == ["All contracts"]
    assert len(roles["main"]) == len(roles["search"]) == len(roles["banner"]) == 1
    assert roles["article"][0].startswith("attention")
    for role in ("link", "checkbox", "region", "searchbox", "article", "DisclosureTriangle"):
        assert all(roles[role]), role
    assert {"columnheader", "rowheader", "cell"} <= roles.keys()
    levels = [
        prop["value"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] == "heading"
        for prop in node["properties"]
        if prop["name"] == "level"
    ]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_first_tab_leads_past_the_list(window, page):
    window.open(page)
    window.press(TAB)
    assert window.focused == "#page-contracts"
    window.press(ENTER)
    assert window.focused == "page-contracts"


def test_without_scripts_the_page_is_complete(window, page):
    window.open(page, scripts=False)
    window.command("Emulation.setScriptExecutionDisabled", value=False)
    assert len(window.shown) == 6
    assert not window.run("return document.querySelector('form').checkVisibility()")


def test_no_contracts(window, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(render((), "Nothing"), encoding="utf-8")
    window.open(path)
    window.press("/", "x", DOWN, ENTER)
    assert window.driver.get_log("browser") == []
    assert window.listed == []
