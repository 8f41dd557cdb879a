"""The page as text: what it says, that it says it as text, and that it is the same each time."""

from __future__ import annotations

import html
import os
import re
import shutil
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.tools.catalog.collect import collect
from jaxtorch_bridge.tools.catalog.page import render
from jaxtorch_bridge.tools.catalog.promises import promises
from jaxtorch_bridge.tools.catalog.view import views_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "specs"
HOSTILE = (
    "</style></script><script>alert(1)</script>\" onload='x' "
    "<img src=x onerror=y> &amp; {{ 7 * 7 }}"
)
VOID = frozenset(("meta", "input", "br"))


class Reader(HTMLParser):
    """Tags and attributes of a page; and that each tag is closed where it must be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


def page_of(*paths: object, title: str = "Contracts") -> str:
    return render(views_of(collect(str(path) for path in paths)), title)


def contract(tmp_path: Path, **fields: object) -> Path:
    import yaml

    data = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "float32[n]"},
        "outputs": {"y": "float32[n]"},
        **fields,
    }
    path = tmp_path / "specs" / f"{data['name']}-{data['version']}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path.parent


@pytest.fixture(scope="module")
def golden() -> str:
    return page_of(GOLDEN)


def test_it_says_what_the_contracts_say(golden):
    page = golden
    Reader(page)
    for text in (
        "mylib.ops:attention",
        "Scaled dot-product attention over heads.",
        "q: float32[batch, heads, seq, dim],",
        "mask: bool[batch, keys] = None,",
        "causal: bool = False,",
        ") -&gt; out: float32[batch, heads, seq, dim]",
        "bias?: float32[m],",
        "&#34;layer.0 bias&#34;: float32[m],",
        "specs/attention.v1.yaml:2",
        "every order",
    ):
        assert text in page, text


def test_dimensions_say_where_their_sizes_come_from(tmp_path):
    specs = contract(
        tmp_path,
        inputs={"x": "float32[..., n, 3]", "w": "float32[n, m]"},
        outputs={"y": "float32[..., m+1]"},
        constraints=["m % 2 == 0"],
        sharding={"n": "data"},
    )
    (view,) = views_of(collect([str(specs)]))
    parts = {part.name: part for part in dict(view.newest.lists)["Dimensions"]}
    assert list(parts) == ["...", "n", "m"]
    assert parts["..."].type == "x leading"
    assert (parts["n"].type, parts["n"].tags) == ("x axis -2, w axis 0", ("mesh axis data",))
    assert (parts["m"].type, parts["m"].doc) == ("w axis 1", "m%2 == 0\ny has m+1")


def test_bounds_are_shown(tmp_path):
    outputs = {
        "kept": {"dtype": "float32", "shape": "[k<=2*n]", "fill": -1, "overflow": "cut"},
        "count": "int32[]",
    }
    specs = contract(tmp_path, inputs={"x": "float32[n]"}, outputs=outputs)
    (view,) = views_of(collect([str(specs)]))
    kept, count = dict(view.newest.lists)["Outputs"]
    assert kept.type == "float32[k<=2*n]"
    assert kept.tags == ("filled with -1", "cut at the bound of `k`")
    assert count.tags == ("counts k",)
    assert "kept: float32[k<=2*n]" in view.newest.signature


def test_what_happens_to_arguments_is_shown(tmp_path):
    specs = contract(
        tmp_path,
        inputs={"x": "float32[n]", "params": {"w": "float32[n]", "b": "float32[n]"}},
        mutates=["params.w"],
        copies=["x"],
    )
    (view,) = views_of(collect([str(specs)]))
    parts = dict(view.newest.lists)["Inputs"]
    assert [one.tags for one in parts] == [("copied",), ("written to",), ()]
    spec = load_spec(specs / "f-1.0.0.yaml")
    assert ("Writes to", "params.w") in promises(spec)
    (text,) = [text for title, text in promises(spec) if title == "Copies"]
    assert text.startswith("x: the function gets a copy")


def test_remarks_on_groups_and_constraints_are_shown_and_found(tmp_path):
    specs = contract(
        tmp_path,
        inputs={"x": "float32[n]", "params": {"w": "float32[n]", "layers": ["float32[n]"]}},
        groups={"inputs.params": "The Weights.", "inputs.params.layers": "In order."},
        constraints=["n > 1", {"rule": "n % 2 == 0", "doc": "Pairs <only>."}],
    )
    (view,) = views_of(collect([str(specs)]))
    parts = dict(view.newest.lists)["Inputs"]
    assert [(one.name, one.type, one.doc) for one in parts] == [
        ("x", "float32[n]", None),
        ("params", "group", "The Weights."),
        ("params.w", "float32[n]", None),
        ("params.layers", "list", "In order."),
        ("params.layers.0", "float32[n]", None),
    ]
    assert {"weights.", "order.", "pairs"} <= set(view.words.split())
    page = page_of(specs)
    Reader(page)
    assert '<p class="doc">The Weights.</p>' in page
    assert '<p class="doc">Pairs &lt;only&gt;.</p>' in page


def test_a_remark_on_a_group_changes_no_part_between_versions(tmp_path):
    inputs = {"params": {"w": "float32[n]"}}
    contract(tmp_path, inputs=inputs)
    specs = contract(tmp_path, version="1.0.1", inputs=inputs, groups={"inputs.params": "Ours."})
    (view,) = views_of(collect([str(specs)]))
    assert view.comparison is not None
    marked = [line.name for line in view.comparison.lines if line.differs]
    assert marked == ["groups"]


def test_everything_from_contracts_stays_text(tmp_path, golden):
    specs = contract(
        tmp_path,
        doc=HOSTILE,
        function="lib.ops:f",
        inputs={
            "x": {"dtype": "float32", "shape": "[n]", "doc": HOSTILE},
            "group": {HOSTILE: "float32[n]", "`<b>`": "float32[n]"},
        },
        static={"mode": HOSTILE},
        sharding={"n": HOSTILE},
    )
    contract(tmp_path, version="1.1.0", doc=HOSTILE + "!", static={"mode": "`<i>`"})
    plain = page_of(contract(tmp_path / "specs", name="plain"))
    reader = Reader(page_of(specs, title=HOSTILE))
    allowed = {tag for tag, _ in Reader(plain).seen}
    allowed |= {tag for tag, _ in Reader(golden).seen}
    assert {tag for tag, _ in reader.seen} <= allowed
    assert sum(tag == "script" for tag, _ in reader.seen) == 1
    assert not any(name.startswith("on") for _, attrs in reader.seen for name in attrs)
    page = page_of(specs, title=HOSTILE)
    assert html.escape("<script>alert(1)</script>") in page
    assert "{{ 7 * 7 }}" in page


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["<b>", "&lt;", "`<i>`", "\"'>", "{{x}}", "]]>", "-->"]
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=st.lists(TEXTS.filter(str.strip), min_size=4, max_size=4))
def test_any_text_is_shown_as_it_is(golden, texts):
    doc, leaf_doc, default, axis = texts
    spec = load_spec(
        {
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "doc": doc,
            "inputs": {"x": {"dtype": "float32", "shape": "[n]", "doc": leaf_doc}},
            "static": {"mode": default},
            "outputs": {"y": "float32[n]"},
            "sharding": {"n": axis},
        }
    )
    page = render(views_of({"f": (spec,)}), doc)
    reader = Reader(page)
    assert {tag for tag, _ in reader.seen} <= {tag for tag, _ in Reader(golden).seen}
    for text in (doc, leaf_doc, f"= {default!r}", f"mesh axis {axis}"):
        assert shown(text) in reader.texts


def shown(text: str) -> str:
    """With what cannot be seen written out; some of it counts as space for Python."""
    hidden = (one for one in text if unicodedata.category(one) in ("Cc", "Cs"))
    for one in set(hidden) - set("\t\n"):
        text = text.replace(one, repr(one)[1:-1])
    return text


def test_it_loads_nothing_and_runs_nothing_else(golden):
    page = golden
    reader = Reader(page)
    for tag, attrs in reader.seen:
        assert not {"src", "style", "action"} & attrs.keys(), (tag, attrs)
        assert tag not in ("link", "iframe", "img", "object", "base"), tag
        assert attrs.get("href", "#").startswith("#"), attrs
    assert "url(" not in page
    assert "@import" not in page
    (policy,) = (one["content"] for _, one in reader.seen if "http-equiv" in one)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_links_lead_to_parts_of_the_page_and_ids_are_unique(golden):
    reader = Reader(golden)
    ids = [attrs["id"] for _, attrs in reader.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {
        attrs[key] for _, attrs in reader.seen for key in ("aria-labelledby", "for") if key in attrs
    }
    named |= {attrs["href"][1:] for tag, attrs in reader.seen if tag == "a"}
    assert named <= set(ids)


def test_ids_of_the_page_are_no_names_of_contracts(tmp_path):
    for name in ("search", "contracts", "page", "location", "document"):
        contract(tmp_path, name=name)
    reader = Reader(page_of(tmp_path / "specs"))
    ids = [attrs["id"] for _, attrs in reader.seen if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_versions_side_by_side(tmp_path):
    contract(tmp_path, static={"scale": 1.0})
    contract(
        tmp_path,
        version="1.10.0",
        inputs={"x": "float32[n]", "b": {"dtype": "float32", "shape": "[n]", "optional": True}},
    )
    specs = contract(tmp_path, version="1.9.0", static={"scale": 1.0}, vjp_depth=1)
    (view,) = views_of(collect([str(specs)]))
    side = view.comparison
    assert side is not None
    assert side.versions == ("1.0.0", "1.9.0", "1.10.0")
    lines = {line.name: line for line in side.lines}

    def cells(name: str) -> list[tuple[str, str]]:
        return [(cell.text, cell.mark) for cell in lines[name].cells]

    assert cells("static scale") == [
        ("= 1.0, float", ""),
        ("= 1.0, float", ""),
        ("", "breaking"),
    ]
    assert cells("vjp_depth") == [("", ""), ("1", "breaking"), ("", "additive")]
    assert cells("input b") == [("", ""), ("", ""), ("float32[n], optional", "additive")]
    assert not lines["input x"].differs
    assert [(step.old.version, step.new.version) for step in side.steps] == [
        ("1.9.0", "1.10.0"),
        ("1.0.0", "1.9.0"),
    ]
    page = page_of(specs)
    assert "breaking changes need 2.0.0 or later" in html.unescape(page)
    assert "f@1</code>" in page


def test_what_callers_notice_is_marked_where_the_words_are_the_same(tmp_path):
    # `k` says the same in both, but its second axis may no longer differ from that of `q`.
    k = {"k": "float32[batch, keys]"}
    contract(tmp_path, inputs={"q": "float32[batch, seq]", **k}, outputs={"y": "float32[batch]"})
    specs = contract(
        tmp_path,
        version="2.0.0",
        inputs={"q": "float32[batch, keys]", **k},
        outputs={"y": "float32[batch]"},
    )
    (view,) = views_of(collect([str(specs)]))
    marks = {line.name: line.cells[1].mark for line in view.comparison.lines}
    changes = {change.path: change.level for change in view.comparison.steps[0].changes}
    assert "breaking" in changes.values()
    for name in ("q", "k"):
        level = changes.get(f"inputs.{name}")
        assert marks[f"input {name}"] == (level or ("changed" if name == "q" else ""))


def test_marks_are_levels_of_the_changes():
    for view in views_of(collect([str(GOLDEN)])):
        if view.comparison is None:
            continue
        for index, step in enumerate(reversed(view.comparison.steps), 1):
            marks = {line.cells[index].mark for line in view.comparison.lines}
            paths = {change.path: change.level for change in step.changes}
            assert marks - {"", "changed"} <= set(paths.values())
            assert ("breaking" in marks) == ("breaking" in paths.values())


def test_the_same_contracts_give_the_same_page(tmp_path, monkeypatch, golden):
    for place in ("here", "there/deeper"):
        shutil.copytree(GOLDEN, tmp_path / place / "specs")
    page = golden
    assert page_of(tmp_path / "here" / "specs") == page
    monkeypatch.chdir(tmp_path / "there" / "deeper")
    assert page_of("specs") == page
    assert page_of("./specs/../specs", "specs/attention.v1.yaml") == page
    monkeypatch.chdir("specs")
    assert page_of(".") == page
    assert str(tmp_path) not in page


def test_names_that_no_text_can_hold(tmp_path):
    specs = contract(tmp_path, static={"mode": "\U0001f600"})
    odd = os.fsencode(specs) + b"/\xff.yaml"
    os.rename(next(specs.iterdir()), odd)
    page = page_of(specs)
    assert "specs/\\udcff.yaml" in page
    assert "\U0001f600" in page
    page.encode("utf-8")


def test_two_contents_of_one_version_are_an_error_that_names_both(tmp_path):
    specs = contract(tmp_path)
    (specs / "z.yaml").write_text((specs / "f-1.0.0.yaml").read_text() + "doc: other\n")
    with pytest.raises(SpecError, match=r"one content for f@1.0.0; specs/f-1.0.0.yaml:3:10 has it"):
        collect([str(specs)])


def test_the_same_content_twice_counts_once(tmp_path):
    specs = contract(tmp_path)
    shutil.copy(specs / "f-1.0.0.yaml", specs / "z.yaml")
    (view,) = views_of(collect([str(specs)]))
    assert view.older == ()


def test_words_of_a_search(tmp_path):
    specs = contract(
        tmp_path,
        name="Lib.Norm",
        doc="Straße",
        inputs={"x": "bfloat16[Batch, n]", "p": {"w": "float32[n]"}},
        static={"eps": 0.1},
        sharding={"n": "data"},
    )
    (view,) = views_of(collect([str(specs)]))
    words = view.words.split(" ")
    for word in (
        "lib.norm",
        "lib.norm@1.0.0",
        "straße",
        "dim:batch",
        "dtype:bfloat16",
        "input:p.w",
        "output:y",
        "static:eps",
        "mesh:data",
    ):
        assert word in words, word


def test_no_contracts(tmp_path):
    page = page_of(tmp_path)
    Reader(page)
    assert "There are no contracts here." in page
    assert re.search(r"<summary>0 contracts</summary>", page)
