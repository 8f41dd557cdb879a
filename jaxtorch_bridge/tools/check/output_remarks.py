"""What a contract leaves open of the outputs: in what they come, and sizes that no input tells."""

from __future__ import annotations

from collections.abc import Mapping

from ...spec.array_tree import Node
from ...spec.language.shapes import Rest, names_in
from ...spec.language.wording import did_you_mean, quote
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec


def stub_remark(spec: CallableSpec, returned: object) -> str | None:
    """What to know of the function's stub, from a result of the function; None: it is right.

    Contracts name outputs, not what holds them; `jaxtorch stubs` takes several for a tuple, and
    for a dict only where a group is among them.
    """
    held, taken = _holder(spec.outputs, returned), _holder_in_stubs(spec.outputs)
    if held == taken or held is None:
        return None
    if held == "in a dict":
        return f"the outputs come in a dict: `jaxtorch stubs` needs `--dict-outputs {spec.name}`"
    return f"the outputs come {held}, where the stub has them {taken}"


def free_sizes(spec: CallableSpec) -> str | None:
    """The dimensions that only outputs have, of which a misspelt one would be one; None: none."""
    bound = {name for _, leaf in spec.input_leaves() for name in leaf.shape.plain_names}
    free = dict.fromkeys(
        name
        for _, leaf in spec.output_leaves()
        for dimension in leaf.shape.dimensions
        if not isinstance(dimension, Rest)
        for name in sorted(names_in(dimension))
        if name not in bound
    )
    if not free:
        return None
    words = ", ".join(f"{quote(name)}{did_you_mean(name, bound)}" for name in free)
    return f"no input tells {words}: of any size, found by running or evaluating the function"


def _holder(outputs: Mapping[str, Node], returned: object) -> str | None:
    if isinstance(returned, Mapping) and set(returned) == set(outputs):
        return "in a dict"
    if len(outputs) > 1:
        return "in a tuple" if isinstance(returned, (tuple, list)) else None
    (node,) = outputs.values()
    alone = isinstance(node, tuple) and len(node) == 1
    if isinstance(returned, (tuple, list)) and len(returned) == 1 and not alone:
        return "in a tuple"
    return "alone"


def _holder_in_stubs(outputs: Mapping[str, Node]) -> str:
    if any(not isinstance(node, (TensorSpec, tuple)) for node in outputs.values()):
        return "in a dict"
    return "in a tuple" if len(outputs) > 1 else "alone"
