from __future__ import annotations

import re
from pathlib import Path

import pytest

from jaxtorch_bridge.supported_versions import TESTED
from jaxtorch_bridge.tools.doctor.versions import examine_versions, floors, installed

ROOT = Path(__file__).parents[3]
GOOD = {
    "python": "3.11.7",
    "jax": "0.10.2",
    "jaxlib": "0.10.2",
    "torch": "2.13.0+cpu",
    "numpy": "2.4.6",
    "pydantic": "2.14.3",
}
FLOORS = {"jax": "0.10", "torch": "2.11"}


def states(found, oldest=FLOORS):
    return [(one.state, one.text, one.remedy) for one in examine_versions(found, oldest)][1:]


def test_the_tested_combinations_are_those_of_ci():
    pinned = {}
    for file in (ROOT / "constraints").glob("py*.txt"):
        python = re.fullmatch(r"py(\d)(\d+)", file.stem).expand(r"\1.\2")
        versions = dict(re.findall(r"^(jax|jaxlib|torch)==(\S+)$", file.read_text(), re.MULTILINE))
        pinned[python] = (versions["jax"], versions["jaxlib"], versions["torch"])
    assert pinned == {one.python: (one.jax, one.jax, one.torch) for one in TESTED}


def test_the_pages_name_the_tested_combinations():
    for page in ("README.md", "CHANGELOG.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        for one in TESTED:
            words = (
                rf"Python {one.python}(?: with|,) JAX {one.jax}(?: and torch|,? torch) {one.torch}"
            )
            assert re.search(words, text), f"{page} does not name {one}"


def test_fine():
    assert states(GOOD) == [
        ("fine", "Python 3.11 with JAX 0.10.2 and torch 2.13.0: tested together", "")
    ]


def test_a_build_for_gpus_is_not_what_was_tested():
    ((state, text, _),) = states({**GOOD, "torch": "2.13.0+cu129"})
    assert (state, text[-40:]) == ("note", "tested together on the CPU, not on a GPU")


@pytest.mark.parametrize(
    ("changed", "text", "remedy"),
    [
        ({"torch": "2.12.0"}, "torch 2.12.0: not tested together", "Take a tested combination"),
        ({"torch": "2.10.1"}, "torch 2.10.1 is older than 2.11", 'pip install "torch>=2.11"'),
        ({"jaxlib": "0.9.1"}, "jax 0.10.2 and jaxlib 0.9.1 are of", '"jaxlib==0.10.2"'),
        ({"numpy": None}, "missing: numpy", 'pip install "numpy"'),
        ({"python": "3.12.1"}, "Python 3.12 with JAX 0.10.2", "make test"),
    ],
)
def test_problems(changed, text, remedy):
    found = {name: one for name, one in {**GOOD, **changed}.items() if one is not None}
    problems = [one for one in states(found) if one[0] == "problem"]
    assert any(text in one[1] and remedy in one[2] for one in problems)


def test_of_this_environment():
    found = installed()
    assert {"python", "jax", "jaxlib", "torch", "numpy"} <= found.keys()
    assert {"jax", "torch", "numpy"} <= floors().keys()
