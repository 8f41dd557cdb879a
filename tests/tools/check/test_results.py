"""What `check` says where a stub would have another holder of the outputs than the function."""

from __future__ import annotations

import pytest

DICT = "the outputs come in a dict: `jaxtorch stubs` needs `--dict-outputs f`"
ONE = "{a: 'float32[n]'}"
TWO = "{a: 'float32[n]', b: 'float32[n]'}"
GROUP = "{g: {u: 'float32[n]'}}"


def test_dimensions_that_no_input_tells(proof_of):
    contract = "inputs: {x: 'float32[batch, n]'}\noutputs: {y: 'float32[bacth, n, k+1]'}\n"
    proof = proof_of("def f(x):\n    return x[..., None]\n", contract)
    said = [words for subject, words in proof.remarks if subject == "sizes"]
    assert said == [
        "no input tells `bacth` (did you mean `batch`?), `k`: of any size, found by running or "
        "evaluating the function"
    ]


@pytest.mark.parametrize(
    ("result", "outputs", "remark"),
    [
        ("x", ONE, None),
        ("(x, x)", TWO, None),
        ("[x, x]", TWO, None),
        ("{'g': {'u': x}}", GROUP, None),
        ("(x,)", "{a: ['float32[n]']}", None),
        ("{'b': x, 'a': x}", TWO, DICT),
        ("{'a': x}", ONE, DICT),
        ("(x,)", ONE, "the outputs come in a tuple, where the stub has them alone"),
        ("{'u': x}", GROUP, "the outputs come alone, where the stub has them in a dict"),
    ],
)
def test_stubs_that_need_to_be_told(proof_of, result, outputs, remark):
    contract = f"inputs: {{x: 'float32[n]'}}\noutputs: {outputs}\n"
    proof = proof_of(f"def f(x):\n    return {result}\n", contract)
    assert proof.problems == []
    said = [words for subject, words in proof.remarks if subject == "stubs"]
    assert said == ([] if remark is None else [remark])
