"""A torch module as a ``flax.linen`` module."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from ..modules.from_module import JaxModule
from .buffer_updates import call_keeping

COLLECTION = "buffers"


class TorchModule(nn.Module):
    """A linen module whose parameters are ``net.params``, under the name ``torch``.

    ``init`` gives the torch module's own values, whatever the key. Buffers are in the collection
    ``buffers``: pass ``mutable=["buffers"]`` to ``apply`` to take back what training changes. The
    random key of a call comes from the stream ``dropout``, if there is one. Parameters that the
    torch module had not require grad have a gradient of zero.

    Attributes:
        net: What `from_module` made.
    """

    net: JaxModule

    @nn.compact
    def __call__(self, *args: Any, train: bool | None = None, **kwargs: Any) -> Any:
        """Call the torch module.

        Raises:
            ModuleError: Buffers would change, but the collection is not mutable.
        """
        params = self.param("torch", lambda key: self.net.params)
        # Without any there is no collection, which flax's own transformations would look for.
        variable = (
            self.variable(COLLECTION, "torch", lambda: self.net.buffers)
            if self.net.buffers
            else None
        )
        if self.has_rng("dropout"):
            kwargs["rng"] = self.make_rng("dropout")
        mutable = self.is_mutable_collection(COLLECTION)
        result, after = call_keeping(
            self.net,
            params,
            {} if variable is None else variable.value,
            args,
            {**kwargs, "train": train},
            keeps=mutable,
            instead=f'Pass mutable=["{COLLECTION}"] to apply',
        )
        # `init` gives the module's own values, although it calls the module.
        if variable is not None and mutable and not self.is_initializing():
            variable.value = after
        return result
