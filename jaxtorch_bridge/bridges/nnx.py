"""A torch module as a ``flax.nnx`` module."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from ..modules.from_module import JaxModule
from .buffer_updates import call_keeping


class FrozenParam(nnx.Variable[Any]):
    """A parameter that the torch module had not require grad: no optimizer of ``Param`` sees it."""


class TorchModule(nnx.Module):
    """An nnx module with an ``nnx.Param`` for each parameter, an ``nnx.BatchStat`` for each buffer.

    Parameters that the torch module had not require grad are of `FrozenParam`.

    Buffers that a call changes are written to their variables, as nnx modules do. After
    ``model.train()`` or ``model.eval()`` the torch module is in that mode; before, as it was when
    `from_module` saw it.

    Args:
        net: What `from_module` made.
        rngs: Where the random keys of calls come from, by the stream ``dropout``.
    """

    def __init__(self, net: JaxModule, *, rngs: nnx.Rngs | None = None) -> None:
        self.net = net
        self.params = nnx.data(
            jax.tree.map(
                lambda leaf, trains: (nnx.Param if trains else FrozenParam)(leaf),
                net.params,
                net.trainable,
            )
        )
        self.buffers = nnx.data(jax.tree.map(nnx.BatchStat, net.buffers))
        self.rngs = rngs
        # The attribute that nnx's `train()` and `eval()` set.
        self.deterministic: bool | None = None

    def __call__(self, *args: Any, train: bool | None = None, **kwargs: Any) -> Any:
        """Call the torch module."""
        if train is None and self.deterministic is not None:
            train = not self.deterministic
        if self.rngs is not None and "rng" not in kwargs:
            kwargs["rng"] = self.rngs.dropout()
        before = _values(self.buffers)
        result, after = call_keeping(
            self.net,
            _values(self.params),
            before,
            args,
            {**kwargs, "train": train},
            keeps=True,
            instead="",
        )
        variables = jax.tree.leaves(self.buffers, is_leaf=_is_variable)
        states = zip(variables, jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        for variable, old, new in states:
            # Buffers that the call leaves alone come back as the very same arrays.
            if new is not old:
                variable[...] = new
        return result


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def _values(tree: Any) -> Any:
    return jax.tree.map(lambda variable: variable[...], tree, is_leaf=_is_variable)
