"""What the bridges share: calls whose buffers must not be lost."""

from __future__ import annotations

from typing import Any

import jax

from ..errors import ModuleError
from ..modules.from_module import JaxModule


def call_keeping(
    net: JaxModule,
    params: Any,
    buffers: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    keeps: bool,
    instead: str,
) -> tuple[Any, Any]:
    """The result and the buffers after the call; frozen parameters have no gradient in it.

    Args:
        net: The module.
        params: Its parameters.
        buffers: Its buffers.
        args: What it takes.
        kwargs: What it takes by name, and ``train``.
        keeps: Whether the caller can keep changed buffers.
        instead: What to do where it can not, for the message.

    Raises:
        ModuleError: The call changes buffers, and the caller cannot keep them.
    """
    # An optimizer of the other library knows no `requires_grad`, and would train them.
    params = net.freeze(params)
    # Nothing can change, so that the plan need not return any.
    if not jax.tree.leaves(buffers):
        return net.apply(params, *args, **kwargs), buffers
    result, after = net.apply(params, *args, buffers=buffers, **kwargs)
    pairs = zip(jax.tree.leaves(buffers), jax.tree.leaves(after), strict=True)
    # Those that a call leaves alone are handed through.
    if not keeps and any(before is not now for before, now in pairs):
        raise ModuleError(
            f"{net.label}: this call changes buffers, which would be lost. {instead}, or call it "
            "in evaluation mode."
        )
    return result, after
