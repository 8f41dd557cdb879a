"""The states of random generators, handed from a forward run to the run that repeats it.

Torch's own, and those of Python and numpy where a function draws from them.
"""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..._compat.torch.generators import generator_key, global_generator_state
from ...planner.array_signature import ArraySig
from ..closure.closure_state import ClosureState
from ..inspection.reachable_objects import instances_in

# Python's generator and numpy's old one: 624 words and how many of them have been used; a flag and
# a second normal number, drawn with the first.
_TWISTER = struct.Struct("<624IIBd")
_AFTER_THE_KEY = struct.Struct("<IBd")
# What the state of any of numpy's bit generators fits into, as JSON.
_JSON_BYTES = 8192
_KINDS: tuple[type, ...] = (
    torch.Generator,
    random.Random,
    np.random.Generator,
    np.random.RandomState,
)


@dataclass(frozen=True, eq=False)
class Generators:
    """Generators besides torch's global ones, as a function may draw from them.

    Attributes:
        foreign: Of Python and numpy: the modules ``random`` and ``numpy.random`` for their global
            ones, and objects that the function closes over.
        own: Objects of torch that it closes over.
    """

    foreign: tuple[Any, ...] = ()
    own: tuple[torch.Generator, ...] = ()

    @classmethod
    def around(cls, closure: ClosureState, values: Sequence[Any] = ()) -> Generators:
        """Those that a function can reach, by what it closes over and by static arguments."""
        found: list[Any] = []
        for value in values:
            found += instances_in(value, _KINDS)
        for value in closure.contents():
            found += instances_in(value, _KINDS, depth=2)
        # Those of the operating system have no state that a run could be repeated from.
        found = [one for one in found if not isinstance(one, random.SystemRandom)]
        foreign = {id(one): one for one in found if not isinstance(one, torch.Generator)}
        # Torch makes a new object each time it hands a generator out.
        own = {generator_key(one): one for one in found if isinstance(one, torch.Generator)}
        return cls((random, np.random, *foreign.values()), tuple(own.values()))

    def only(self, foreign: Sequence[Any], keys: set[int]) -> Generators:
        """Some of them.

        Args:
            foreign: Which of ``foreign``.
            keys: Which of ``own``, by `generator_key`.
        """
        own = tuple(one for one in self.own if generator_key(one) in keys)
        return Generators(tuple(foreign), own)

    def holds(self, generator: torch.Generator) -> bool:
        """Whether it is one of ``own``."""
        key = generator_key(generator)
        return any(generator_key(one) == key for one in self.own)

    def snapshot(self) -> Snapshot:
        """The states of ``foreign`` and of torch's global CPU generator, as they are."""
        return Snapshot(self)

    def states(self, device: str) -> list[torch.Tensor]:
        """All states as uint8: torch's CPU generator, with CUDA the current device's, others."""
        states = [torch.get_rng_state(), *(one.get_state() for one in self.own)]
        # A bytearray: of memory that cannot be written to torch warns.
        states += [
            torch.frombuffer(bytearray(_packed(one)), dtype=torch.uint8) for one in self.foreign
        ]
        if device == "cuda":
            # The order is that of `_put`.
            states.insert(1, torch.cuda.get_rng_state())
            states = [state.cuda() for state in states]
        return states

    def sigs(self, device: str) -> tuple[ArraySig, ...]:
        """What `states` gives, as flat arrays."""
        return tuple(
            # `linear_part` finds them by this name.
            ArraySig(f"random state {i}", (state.numel(),), "uint8", "uint8", differentiable=False)
            for i, state in enumerate(self.states(device))
        )

    @contextlib.contextmanager
    def drawing_from(self, states: Sequence[torch.Tensor], device: str) -> Iterator[None]:
        """Draw what was drawn from these states, and leave the generators as they were."""
        before = self.states(device)
        # A generator keeps what it is given: XLA's memory must not reach it.
        self._put([state.cpu().clone() for state in states], device)
        try:
            yield
        finally:
            # Own copies already, unlike those that were passed in.
            self.put_back(before, device)

    def put_back(self, states: Sequence[torch.Tensor], device: str) -> None:
        """Go on from these states, of `states`."""
        self._put([state.cpu() for state in states], device)

    def _put(self, states: Sequence[torch.Tensor], device: str) -> None:
        rest = list(states)
        torch.set_rng_state(rest.pop(0))
        if device == "cuda":
            torch.cuda.set_rng_state(rest.pop(0))
        for one in self.own:
            one.set_state(rest.pop(0))
        for foreign in self.foreign:
            _unpack(foreign, rest.pop(0).numpy().tobytes())


NO_GENERATORS = Generators()


class Snapshot:
    """States before an abstract evaluation, which moves torch's generators by seeding them only."""

    def __init__(self, generators: Generators) -> None:
        self._foreign = [(one, _packed(one)) for one in generators.foreign]
        self._torch = global_generator_state()

    @property
    def reseeded(self) -> bool:
        """Whether something has set torch's generator since."""
        return global_generator_state() != self._torch

    def restore(self) -> list[Any]:
        """Put everything back; the foreign generators that had moved."""
        moved = [(one, state) for one, state in self._foreign if _packed(one) != state]
        for one, state in moved:
            _unpack(one, state)
        if self.reseeded:
            torch.set_rng_state(torch.frombuffer(bytearray(self._torch), dtype=torch.uint8))
        return [one for one, _ in moved]


def words_on(foreign: Sequence[Any]) -> str:
    """Some foreign generators, for messages."""
    names = {id(random): "Python's `random`", id(np.random): "`numpy.random`"}
    return " and ".join(names.get(id(one), f"a `{type(one).__name__}`") for one in foreign)


def _packed(generator: Any) -> bytes:
    """A generator's state, always as many bytes."""
    if generator is random or isinstance(generator, random.Random):
        version, words, normal = generator.getstate()
        if version != 3:
            raise RuntimeError(f"{words_on([generator])} has a state of an unknown kind")
        return _TWISTER.pack(*words, normal is not None, normal or 0.0)
    if isinstance(generator, np.random.Generator):
        state: Any = generator.bit_generator.state
    else:
        state = generator.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            key, rest = state["state"]["key"].astype("<u4"), (state["has_gauss"], state["gauss"])
            return bytes(key.tobytes() + _AFTER_THE_KEY.pack(state["state"]["pos"], *rest))
    # Some bit generators keep arrays in it, and take lists back.
    text = json.dumps(state, default=lambda value: value.tolist()).encode()
    if len(text) > _JSON_BYTES:
        raise RuntimeError(f"{words_on([generator])} has a state of {len(text)} bytes")
    # The states are residuals, whose shapes must not depend on their values.
    return text.ljust(_JSON_BYTES)


def _unpack(generator: Any, packed: bytes) -> None:
    """Give a generator a state."""
    if generator is random or isinstance(generator, random.Random):
        *words, has_normal, normal = _TWISTER.unpack(packed)
        generator.setstate((3, tuple(words), normal if has_normal else None))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = json.loads(packed)
    elif len(packed) == _JSON_BYTES:
        generator.set_state(json.loads(packed))
    else:
        *key, position, has_normal, normal = _TWISTER.unpack(packed)
        generator.set_state(
            {
                "bit_generator": "MT19937",
                "state": {"key": np.array(key, np.uint32), "pos": position},
                "has_gauss": has_normal,
                "gauss": normal,
            }
        )
