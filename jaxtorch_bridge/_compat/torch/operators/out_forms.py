"""Forms of ATen ops that write where they are told to, and ops that are views.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class OutForm:
    """The form of an ATen op that writes to tensors that it is given.

    Attributes:
        target: The overload to call.
        names: Its keyword for each result.
        copies: It is ``copy_``, which takes the target first.
        extra: Further positional arguments.
    """

    target: Any
    names: tuple[str, ...]
    copies: bool = False
    extra: tuple[Any, ...] = ()

    def call(self, graph: Any, op: Any, targets: Sequence[Any]) -> Any:
        """Add the call that does what the node ``op`` does."""
        if self.copies:
            return graph.call_function(self.target, (targets[0], op.args[0]))
        keywords = {**op.kwargs, **dict(zip(self.names, targets, strict=True))}
        return graph.call_function(self.target, (*op.args, *self.extra), keywords)


_COPIES = (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default)
# Here too the forms of the ops themselves are generated ones; these take numbers as well.
_BY_NUMBERS = {
    torch.ops.aten.mul.Scalar: torch.ops.aten.mul.out,
    torch.ops.aten.div.Scalar: torch.ops.aten.div.out,
}


@functools.cache
def out_form(op: Any, device: str) -> OutForm | None:
    """How to have an ATen op write its results where it is told to; None if it cannot.

    Only kernels count that really write there: the many ``out=`` forms that torch generates
    compute a result of their own and copy it.

    Args:
        op: An overload that writes to nothing.
        device: ``cpu`` or ``cuda``.
    """
    if op in _COPIES:
        return OutForm(torch.ops.aten.copy_.default, ("self",), copies=True)
    if op is torch.ops.aten.relu.default:
        # Torch computes it so; the form of relu itself is a generated one.
        return OutForm(torch.ops.aten.clamp_min.out, ("out",), extra=(0,))
    if op in _BY_NUMBERS:
        return OutForm(_BY_NUMBERS[op], ("out",))
    schema = getattr(op, "_schema", None)
    if schema is None or schema.is_mutable:
        return None
    # Each buffer is for one tensor.
    if not all(str(result.type) == "Tensor" for result in schema.returns):
        return None
    wanted = _described(schema, written=False)
    packet = op.overloadpacket
    for name in packet.overloads():
        form = getattr(packet, name)
        names = tuple(name for name, _ in _described(form._schema, written=True))
        if len(names) != len(schema.returns) or _described(form._schema, written=False) != wanted:
            continue
        key = {"cpu": "CPU", "cuda": "CUDA"}[device]
        # Generated forms are made for all devices at once.
        if torch._C._dispatch_has_kernel_for_dispatch_key(form.name(), key):
            return OutForm(form, names)
    return None


def _described(schema: Any, *, written: bool) -> list[tuple[str, str]]:
    """(name, type) of the arguments that are written to, or of the others."""
    return [
        (argument.name, str(argument.type))
        for argument in schema.arguments
        if written == (argument.alias_info is not None and argument.alias_info.is_write)
    ]


def is_strided_view_op(target: Any) -> bool:
    """Whether an ATen op returns its first argument's memory under other sizes and strides.

    Views that also conjugate or negate are left out: sizes and strides do not tell of those.
    """
    schema = getattr(target, "_schema", None)
    if target is torch.ops.aten._unsafe_view.default:
        return True  # nothing else has what it views, so that its schema need not say so
    if schema is None or not schema.arguments or len(schema.returns) != 1:
        return False
    if target in (torch.ops.aten._conj.default, torch.ops.aten._neg_view.default):
        return False
    source, result = schema.arguments[0].alias_info, schema.returns[0].alias_info
    return (
        source is not None
        and result is not None
        and not source.is_write
        and bool(source.before_set & result.before_set)
    )
