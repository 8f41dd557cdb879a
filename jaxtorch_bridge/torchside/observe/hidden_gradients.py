"""Which results were computed from what autograd takes for a constant, though it is none.

What ``torch.autograd.grad`` gives without ``create_graph`` depends on the inputs, and autograd has
no way back through it. The same is true of what a custom function computes in its forward, or
detaches in its backward. So whatever is made of these has a derivative that torch does not know,
also where autograd leads back by another way. Unless the function says that it means a constant: it
detaches what is detached already, and goes on with that alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ..._compat.torch import autograd, pytrees
from ..._compat.torch.autograd_graph import leads_back_to
from ..._compat.torch.fake_tensors import LEAVES_TORCH
from ..._compat.torch.operators.higher_order import CallMode, OpMode
from ..._compat.torch.operators.linear_ops import MADE_LIKE, WITHOUT_SLOPE, name_of
from ..._compat.torch.operators.writes_and_draws import written_arguments
from ..._compat.torch.storages import memory_key, reserve_storage_key
from .rare_watch import RareWatch

# What was taken for a constant: an inner gradient, on the only way back or beside others, or
# something in a custom function.
Reason = Literal["gradient", "gradient beside others", "function"]
Hidden = Mapping[int, Reason]


class HiddenGradients:
    """Follows some tensors, and what inner gradients by them become, while a function runs.

    By memory, since functions write to views of it.

    Attributes:
        noticed: There was such a constant.
        left: Torch was left by numpy or DLPack, so that nobody can tell what depends on what.
    """

    def __init__(self, moving: Sequence[torch.Tensor]) -> None:
        self.noticed = False
        self.left = False
        # How deep in passes back that autograd records, and that it does not.
        self._depth = {True: 0, False: 0}
        self._moving: set[int] = set()
        # What a custom function has made: a constant wherever autograd leads nowhere from it.
        self._sealed: set[int] = set()
        # What a custom backward has made or written to, of which autograd may not know (`.data`).
        self._behind: set[int] = set()
        self._hidden: dict[int, Reason] = {}
        # Inner gradients that are constants by the function's own word, and what is made of these.
        self._meant: set[int] = set()
        # Of memory that it has detached, the tensors that it may go on with. With another, a view
        # from before, it was no word.
        self._words: dict[int, dict[int, torch.Tensor]] = {}
        self._inputs = list(moving)
        # Memory that is given back would be somebody else's under the same number.
        self._reserved: dict[int, Any] = {}
        for tensor in moving:
            self._move(tensor)
        self._modes = contextlib.ExitStack()

    def __enter__(self) -> HiddenGradients:
        self._modes.enter_context(_Calls(self))
        self._modes.enter_context(_Ops(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.close()

    def of(self, results: Sequence[Any]) -> Hidden:
        """Which of these have a derivative that torch does not know, and why."""
        found: dict[int, Reason] = {}
        for index, result in enumerate(results):
            if not isinstance(result, torch.Tensor):
                continue
            key = _key(result)
            if key in self._hidden:
                reason = self._hidden[key]
                beside = reason == "gradient" and leads_back_to(result, self._inputs)
                if beside and key in self._meant:
                    continue
                found[index] = "gradient beside others" if beside else reason
            elif key in self._behind and not result.requires_grad:
                found[index] = "function"
        return found

    def going_back(self, recorded: bool, by: int) -> None:
        """Autograd goes back (``by`` 1), or has done so (-1)."""
        self._depth[recorded] += by

    def detach(self, tensor: torch.Tensor, run: Callable[[], Any]) -> Any:
        """Run what the function detaches this by."""
        key, result = _key(tensor), run()
        known = self._hidden.get(key) == "gradient" and (
            key not in self._meant or key in self._words
        )
        # In a backward it is the code of some library, and so it is in torch's own functions.
        if known and not any(self._depth.values()) and not autograd.is_called_by_torch():
            self._meant.add(key)
            self._words.setdefault(key, {})[id(result)] = result
        return result

    def use(self, given: Any, run: Callable[[], Any]) -> Any:
        """Run a function that is given these."""
        if not self._words:
            return run()
        for tensor in _tensors(given):
            key = _key(tensor)
            if key in self._words and id(tensor) not in self._words[key]:
                del self._words[key]
                self._meant.discard(key)
        result = run()
        for tensor in _tensors(result):
            # A view of what the function may go on with.
            if (words := self._words.get(_key(tensor))) is not None:
                words[id(tensor)] = tensor
        return result

    def own(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient that was not recorded, in memory that is marked."""
        key = _key(gradient)
        if key in self._hidden or key not in self._moving or gradient.requires_grad:
            return gradient
        # A view of something that has a derivative of its own, such as the cotangent.
        copy = gradient.clone()
        self._hide(copy, "gradient")
        return copy

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op, and mark what it makes and writes to."""
        given = _tensors((args, kwargs))
        # Asked before it runs, which may give a tensor other memory.
        keys = [_key(tensor) for tensor in given]
        constant = name_of(func) in MADE_LIKE or name_of(func) in WITHOUT_SLOPE
        moves = not constant and not self._moving.isdisjoint(keys)
        reason = None if constant else self._reason(given, keys, moves)
        of_hidden = self._hidden.keys() & keys
        meant = bool(of_hidden) and of_hidden <= self._meant and not self._depth[False]
        result = func(*args, **kwargs)
        if not moves and reason is None:
            return result
        seals = moves and self._seals(func)
        if seals:
            # Also what is only another view of it.
            self._sealed.update(_key(tensor) for tensor in _tensors(result))
        behind = moves and self._depth[True] > 0 and autograd.in_custom_backward()
        # A view of what was given is what its memory is.
        made = [tensor for tensor in _tensors(result) if _key(tensor) not in keys]
        for tensor in (*written_arguments(func, args, kwargs), *made):
            # Numbers that only decide or count carry no derivative.
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            if moves:
                self._move(tensor)
            if behind:
                self._behind.add(_key(tensor))
            if reason is not None:
                self._hide(tensor, reason, meant=meant)
        return result

    def _reason(
        self, given: Sequence[torch.Tensor], keys: Sequence[int], moves: bool
    ) -> Reason | None:
        """Why what is made of these would be taken for a constant, or of one."""
        found = next((self._hidden[key] for key in keys if key in self._hidden), None)
        if found is not None:
            return found
        if self._depth[False]:
            return "gradient" if moves else None
        if self._depth[True]:
            # Autograd leads on from what a backward takes from `saved_tensors`.
            for tensor, key in zip(given, keys, strict=True):
                if not tensor.requires_grad and (key in self._sealed or key in self._behind):
                    return "function"
        return None

    def _seals(self, func: Any) -> bool:
        if not autograd.is_own(func):
            return True
        recorded = torch.is_grad_enabled()
        if self._depth[True]:
            return (not recorded or name_of(func) == "detach") and autograd.in_custom_backward()
        return not recorded and autograd.in_custom_function()

    def _move(self, tensor: torch.Tensor) -> None:
        key = _key(tensor)
        self._moving.add(key)
        if key not in self._reserved:
            lies = memory_key(tensor)
            self._reserved[key] = reserve_storage_key(tensor) if lies else tensor

    def _hide(self, tensor: torch.Tensor, reason: Reason, *, meant: bool = False) -> None:
        self._move(tensor)
        self.noticed = True
        key = _key(tensor)
        if not meant:
            self._meant.discard(key)
        elif key not in self._hidden:
            self._meant.add(key)
        self._hidden.setdefault(key, reason)


class _Ops(OpMode):
    def __init__(self, hidden: HiddenGradients) -> None:
        super().__init__()
        self._hidden = hidden

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self._hidden.see(func, args, kwargs)

    def run_higher_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        # Without code of its own: as one op.
        run = super().run_higher_order
        return self._hidden.see(lambda *given, **named: run(func, given, named), args, kwargs)

    def unseen(self, func: Any) -> None:
        """Nothing is missing: what goes in marks what comes out."""


class _Calls(CallMode):
    def __init__(self, hidden: HiddenGradients) -> None:
        super().__init__()
        self._hidden = hidden

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        self._hidden.left |= func in LEAVES_TORCH
        run = functools.partial(func, *args, **kwargs)
        if func in autograd.DETACH:
            return self._hidden.detach(args[0], run)
        return self._hidden.use((args, kwargs), run)

    def going_back(self, recorded: bool) -> None:
        self._hidden.going_back(recorded, 1)

    def went_back(self, recorded: bool) -> None:
        self._hidden.going_back(recorded, -1)

    def gradients(self, recorded: bool, found: Any) -> Any:
        if recorded:
            return found
        return pytrees.tree_map_only(torch.Tensor, self._hidden.own, found)


@dataclass(frozen=True)
class Judgement:
    """What a run has shown.

    Attributes:
        hidden: Results whose derivative torch does not know.
        left: It has left torch, as far as anybody has seen: a result that nothing was recorded of
            need not be a constant.
    """

    hidden: Hidden = field(default_factory=dict)
    left: bool = False


class JudgedRuns:
    """Runs of a function that nobody has seen abstractly, and what is to be thought of them.

    Until something is seen, runs are watched ever more rarely; then all of them are, since what the
    function does may change from run to run.

    Args:
        always: Something has been seen already.
    """

    def __init__(self, *, always: bool) -> None:
        self._always = always
        self._left = False
        self._watch = RareWatch()

    def run(
        self,
        function: Callable[..., Sequence[Any]],
        tensors: Sequence[torch.Tensor],
        wrt: Sequence[int],
    ) -> tuple[list[Any], Judgement]:
        """The results on these tensors, and a judgement of their derivatives by ``wrt``."""
        if not (self._watch.due() or self._always):
            return list(function(*tensors)), Judgement(left=self._left)
        with HiddenGradients([tensors[index] for index in wrt]) as watch:
            results = list(function(*tensors))
        self._left |= watch.left
        self._always |= watch.noticed or not any(map(_is_recorded, results))
        return results, Judgement(watch.of(results), self._left)


def _is_recorded(result: Any) -> bool:
    return isinstance(result, torch.Tensor) and result.requires_grad


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytrees.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _key(tensor: torch.Tensor) -> int:
    # Sparse tensors have no memory of their own.
    return memory_key(tensor) or id(tensor)
