"""The stubs of contracts that use every feature, byte by byte.

To renew them after a change that is meant: `make golden`, then look at the difference.
"""

from __future__ import annotations

import ast
import random
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from jaxtorch_bridge.dtypes import DTYPES
from jaxtorch_bridge.spec.files.contract_files import contract_files
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.tools.stubs.arrays import annotation, jaxtyping_name
from jaxtorch_bridge.tools.stubs.collect import collect
from jaxtorch_bridge.tools.stubs.files import stubs_in
from jaxtorch_bridge.tools.stubs.names import Names

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
IN_DICTS = {"scale"}


def test_stubs_are_the_golden_ones():
    stubs = stubs_in(GOLDEN / "stubs", collect(contract_files([str(GOLDEN / "specs")])), IN_DICTS)
    assert "".join(stub.diff() for stub in stubs) == "", "run `make golden` if this is meant"
    assert {stub.path for stub in stubs} == set((GOLDEN / "stubs").rglob("*.pyi"))


def test_the_order_of_files_does_not_matter():
    files = list(contract_files([str(GOLDEN / "specs")]))
    texts = set()
    for seed in range(5):
        random.Random(seed).shuffle(files)
        texts.add(tuple(stub.text for stub in stubs_in(GOLDEN, collect(files), IN_DICTS)))
    assert len(texts) == 1


def test_docstrings_read_as_the_contract_says():
    module = ast.parse((GOLDEN / "stubs/mylib/clashes.pyi").read_text(encoding="utf-8"))
    classes = {one.name: one for one in module.body if isinstance(one, ast.ClassDef)}
    call = classes["_Quotes"].body[0]
    doc = load_spec(GOLDEN / "specs/quotes.yaml").doc
    assert isinstance(call, ast.FunctionDef)
    lines = [line.strip() for line in doc.splitlines()]
    assert [line.strip() for line in ast.get_docstring(call).splitlines()][: len(lines)] == lines


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_a_name_in_jaxtyping(dtype):
    kind = getattr(jaxtyping, jaxtyping_name(dtype))
    assert "Shaped" in kind.__name__ or dtype in kind.dtypes


def test_jaxtyping_reads_every_shape_as_the_contract_does():
    spec = load_spec(GOLDEN / "specs/shapes.yaml")
    sums = dict(spec.output_leaves())[("sums",)]
    names = {name: getattr(jaxtyping, name) for name in ("Float32", "Float64")}
    text = annotation(spec, sums, "Array", Names(()))
    first = jaxtyping.Float64[np.ndarray, "n m"]
    wanted = eval(text, {**names, "Array": np.ndarray})

    @jaxtyping.jaxtyped(typechecker=None)
    def fits(*shape):
        return isinstance(np.zeros((5, 2)), first) and isinstance(np.zeros(shape), wanted)

    assert fits(6, 3, 10, 14, 2, 4)
    assert not fits(6, 3, 10, 14, 3, 4)
