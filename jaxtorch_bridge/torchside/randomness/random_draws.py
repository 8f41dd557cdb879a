"""What random numbers a function draws, seen while it is evaluated abstractly.

A captured graph draws from torch's generators whenever it runs. Numbers from elsewhere it would
keep as they were when it was traced, and of a seed that is set inside it knows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..._compat.torch import pytrees
from ..._compat.torch.generators import generator_key
from ..._compat.torch.operators.writes_and_draws import drawn_shape
from .generator_states import Generators, Snapshot, words_on

_STRIDED = (torch.channels_last, torch.channels_last_3d)


class DrawWatch:
    """Watches one evaluation.

    Attributes:
        random: It draws random numbers.
        live: Why only its Python code draws the right ones, in words; empty if a graph does too.
        used: The generators that it draws from, besides torch's global ones.
        shapes: Of the random tensors that it draws, in order.
        strided: It fills tensors that are not row-major.
        impure: Two calls draw other numbers: not from a seed or a generator that a call makes.
    """

    def __init__(self, generators: Generators) -> None:
        self.random = False
        self.live = ""
        self.used = Generators()
        self.shapes: list[tuple[int, ...]] = []
        self.strided = False
        self.impure = False
        self._generators = generators
        self._before = Snapshot(generators)
        self._keys: set[int] = set()
        self._seeds = False
        self._makes = False

    def look(
        self,
        generator: torch.Generator | None,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        """At an operation that draws, from this generator or from torch's global one."""
        self.random = True
        self.shapes.append(drawn_shape(result))
        filled = pytrees.arg_tree_leaves(*args, **kwargs)
        self.strided |= kwargs.get("memory_format") in _STRIDED or any(
            isinstance(value, torch.Tensor) and not value.is_contiguous() for value in filled
        )
        if generator is None or generator_key(generator) == generator_key(torch.default_generator):
            # Operations on fakes leave it as it is.
            self._seeds |= self._before.reseeded
            # What follows a seed that the function sets is the same in every call.
            self.impure |= not self._seeds
        elif self._generators.holds(generator):
            self._keys.add(generator_key(generator))
        else:
            self._makes = True

    def finish(self) -> None:
        """When the function has returned; puts the generators back."""
        self._seeds |= self._before.reseeded
        # After the look at seeds: this puts torch's state back.
        moved = self._before.restore()
        self.used = self._generators.only(moved, self._keys)
        self.impure |= bool(moved or self._keys)
        reasons = {
            f"it draws from {words_on(moved)}": bool(moved),
            "it seeds torch's generator": self._seeds,
            "it makes a generator": self._makes,
        }
        self.live = " and ".join(reason for reason, applies in reasons.items() if applies)
        # Numbers of Python and numpy come by no operation that `look` sees.
        self.random |= bool(self.live)
