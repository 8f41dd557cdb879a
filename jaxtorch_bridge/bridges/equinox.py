"""A torch module as an ``equinox`` module."""

from __future__ import annotations

from typing import Any

import equinox as eqx

from ..modules.from_module import JaxModule
from .buffer_updates import call_keeping


class TorchModule(eqx.Module):
    """An equinox module whose leaves are the parameters; buffers are ``eqx.nn.State``.

    Parameters that the torch module had not require grad have a gradient of zero.

    Make it with ``model, state = eqx.nn.make_with_state(TorchModule)(net)`` and call
    ``model(x, state=state)``, or ``TorchModule(net)`` where no call changes buffers.
    ``inference`` is what ``eqx.nn.inference_mode`` sets; None leaves the torch module in its own
    mode.

    Attributes:
        params: ``net.params``.
        inference: As said.
        index: Where the buffers are in the state.
        net: What `from_module` made.
    """

    params: Any
    index: eqx.nn.StateIndex[Any]
    inference: bool | None
    # Static, so that trees and optimizers see `params` alone, and not the arrays that it keeps.
    net: JaxModule = eqx.field(static=True)

    def __init__(self, net: JaxModule, inference: bool | None = None) -> None:
        self.net = net
        self.params = net.params
        self.index = eqx.nn.StateIndex(net.buffers)
        self.inference = inference

    def __call__(
        self, *args: Any, state: eqx.nn.State | None = None, key: Any = None, **kwargs: Any
    ) -> Any:
        """Call the torch module.

        Args:
            *args: What it takes.
            state: Where its buffers are; without it they are the module's own.
            key: A random key.
            **kwargs: What it takes by name.

        Returns:
            The result; with ``state`` a pair ``(result, state)``.

        Raises:
            ModuleError: Buffers would change, and there is no state.
        """
        if key is not None:
            kwargs["rng"] = key
        kwargs["train"] = None if self.inference is None else not self.inference
        buffers = self.net.buffers if state is None else state.get(self.index)
        result, after = call_keeping(
            self.net,
            self.params,
            buffers,
            args,
            kwargs,
            keeps=state is not None,
            instead="Pass state=, and get (result, state)",
        )
        return result if state is None else (result, state.set(self.index, after))
