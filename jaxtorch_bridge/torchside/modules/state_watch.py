"""What a call does to the tensors of a module: seen by its operations, or by counts of writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..._compat.torch import pytrees
from ..._compat.torch.operators.higher_order import OpMode
from ..._compat.torch.operators.writes_and_draws import written_arguments
from ..._compat.torch.tensors import version_of
from ...errors import ModuleError
from ..inspection.reachable_objects import memory_of
from .skeleton import Template


class OperationWatch(OpMode):
    """Sees writes to what came in, and uses of tensors that the call cannot exchange."""

    def __init__(self, template: Template, state: Iterable[tuple[int, torch.Tensor]]) -> None:
        super().__init__()
        self.written: set[int] = set()
        self._template = template
        self._state = {memory_of(tensor): index for index, tensor in state}

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Note what an ATen op writes to, and run it."""
        for tensor in written_arguments(func, args, kwargs):
            memory = memory_of(tensor)
            if memory in self._state:
                self.written.add(self._state[memory])
            elif memory in self._template.constants:
                raise ModuleError(
                    f"the module writes to `{self._template.constants[memory]}`, a tensor that is "
                    "neither a parameter nor a buffer. Use `register_buffer`, so that it is an "
                    "argument and a result."
                )
        for value in pytrees.arg_tree_leaves(*args, **kwargs):
            if isinstance(value, torch.Tensor):
                self._refuse_original(value)
        return func(*args, **kwargs)

    def _refuse_original(self, tensor: torch.Tensor) -> None:
        memory = memory_of(tensor)
        # Arguments may share the module's memory: `params` does, where JAX can use it.
        if memory in self._template.own and memory not in self._state:
            name = self._template.own[memory][0]
            raise ModuleError(
                f"the module reaches `{name}` in another way than as an attribute of its layers "
                "(through a view, a tuple, a hook or a closure), so that it cannot be given "
                "another value. Let the code use the layer's attribute."
            )
        if memory in self._template.computed and memory not in self._state:
            raise ModuleError(
                f"the module uses `{self._template.computed[memory]}`, which was computed from "
                "its parameters before it was taken, so that it cannot follow them. Compute it in "
                "`forward`."
            )


class WriteCounts:
    """Sees writes to tensors by torch's own counts, which writes through ``.data`` escape."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.written: set[int] = set()
        self._tensors = tensors

    def __enter__(self) -> None:
        self._before = [version_of(tensor) for tensor in self._tensors]

    def __exit__(self, *_: object) -> None:
        for index, (tensor, before) in enumerate(zip(self._tensors, self._before, strict=True)):
            if version_of(tensor) != before:
                self.written.add(index)
