"""Words of failures that only a wrong build or plan would meet."""

from __future__ import annotations

from jaxtorch_bridge.planner.array_signature import ArraySig
from jaxtorch_bridge.torchside.handler.failure_messages import Faults


def test_a_dtype_that_torch_does_not_have_is_named_with_its_path():
    sigs = [ArraySig(path, (2, 3), dtype, "float32") for path, dtype in (("x", "int4"), ("y", "f"))]
    faults = Faults("f", sigs, sigs[::-1])
    for kind, word, path, dtype in (
        ("input_dtype", "input", "x", "int4"),
        ("result_dtype", "output", "y", "f"),
    ):
        text = faults(kind, 0, None)
        assert text.startswith(f"f, {word} `{path}`: expected a dtype that torch has")
        assert f"buffer of {dtype}" in text
        assert kind not in text
