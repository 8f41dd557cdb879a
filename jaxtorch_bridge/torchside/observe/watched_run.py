"""What a torch function does, seen op by op while it runs or is evaluated abstractly."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._compat.torch import autograd, pytrees
from ..._compat.torch.fake_tensors import (
    ValuesReadError,
    is_fake,
    lifts_constants,
    reads_values,
    without_constant,
)
from ..._compat.torch.operators.attention import is_attention
from ..._compat.torch.operators.higher_order import CallMode, OpMode
from ..._compat.torch.operators.writes_and_draws import (
    draws_random_numbers,
    own_generator,
    written_arguments,
)
from ..._compat.torch.storages import memory_key, storage_key
from ..._compat.torch.thread_flags import set_grad_enabled
from ..inspection.deep_contents import DeepContents
from ..randomness.generator_states import NO_GENERATORS, Generators
from ..randomness.random_draws import DrawWatch
from .attribute_swaps import SwapWatch
from .written_copies import written_copies


@dataclass
class Observed:
    """What a function did while it was watched."""

    written_inputs: set[int] = field(default_factory=set)
    updated: list[torch.Tensor] = field(default_factory=list)
    closes_over_grad: bool = False
    complex_numbers: bool = False
    generators: Generators = NO_GENERATORS
    impure_draws: bool = False
    grads_inside: bool = False
    own_backwards: bool = False
    attention: bool = False
    switches_grad: bool = False
    made: list[weakref.ref[torch.Tensor]] = field(default_factory=list)
    read: dict[int, torch.Tensor] = field(default_factory=dict)
    modules: list[torch.nn.Module] = field(default_factory=list)
    everywhere: list[str] = field(default_factory=list)
    records: bool = False
    untraced: bool = False
    higher_order: bool = False
    around: DeepContents | None = None
    kept: bool = False


class OpWatch(OpMode):
    """Sees every ATen op: also writes through ``.data`` or ``detach()``, which versions miss."""

    takes_every_branch = True

    def __init__(
        self,
        observed: Observed,
        mode: Any,
        inputs: Sequence[torch.Tensor],
        swaps: SwapWatch,
        draws: DrawWatch,
    ) -> None:
        super().__init__()
        self._observed = observed
        self._swaps = swaps
        self._draws = draws
        self._mode = mode
        # By memory, which an input shares with its views and with what `detach()` makes of it.
        self._inputs = {storage_key(tensor): i for i, tensor in enumerate(inputs)}

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Note what an ATen op does, and run it on fakes."""
        observed = self._observed
        # At each op, since what is swapped may be put back before the end.
        self._swaps.look()
        for tensor in list(written_arguments(func, args, kwargs)):
            index = self._inputs.get(storage_key(tensor))
            if index is not None:
                observed.written_inputs.add(index)
            # A real tensor here is one that the function closes over. `in` would compare values.
            elif not is_fake(tensor) and all(tensor is not o for o in observed.updated):
                observed.updated.append(tensor)
        for value in pytrees.arg_tree_leaves(*args, **kwargs):
            if isinstance(value, torch.Tensor):
                observed.complex_numbers |= value.is_complex()
                observed.records |= value.requires_grad and torch.is_grad_enabled()
                if not is_fake(value):
                    # Kept alive, so that its id stays its own.
                    observed.read[id(value)] = value
                    observed.closes_over_grad |= value.requires_grad
        if not lifts_constants(func):
            args, kwargs = self._with_fakes(args, kwargs)
        if not observed.own_backwards:
            # Torch runs a custom forward without gradients; looking for one walks the stack.
            observed.own_backwards = not autograd.is_own(func) or (
                not torch.is_grad_enabled() and autograd.in_custom_function()
            )
        observed.attention |= is_attention(func)
        result = func(*args, **kwargs)
        if draws_random_numbers(func, args, kwargs):
            self._draws.look(own_generator(args, kwargs), args, kwargs, result)
        for value in pytrees.tree_leaves(result):
            if isinstance(value, torch.Tensor) and is_fake(value):
                # Weakly: one that is alive after the call is kept by the function.
                observed.made.append(weakref.ref(value))
        return result

    def run_higher_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a higher-order operator; what it is given may come back as it is."""
        args, kwargs = self._with_fakes(args, kwargs)
        return super().run_higher_order(func, args, kwargs)

    def _with_fakes(self, args: Any, kwargs: Any) -> Any:
        """The arguments with fakes in place of real tensors.

        They must not be written to. And of small ones torch would keep the values, so that what
        the function reads of them later would stay what it was when it was planned.
        """
        return pytrees.tree_map_only(
            torch.Tensor,
            lambda tensor: tensor if is_fake(tensor) else without_constant(self._mode, tensor),
            (args, kwargs),
        )


class WriteGuard(OpMode):
    """Calls ``refuse(index)`` before an ATen op writes to an input's memory."""

    def __init__(self, inputs: Sequence[torch.Tensor], refuse: Callable[[int], None]) -> None:
        super().__init__()
        self._refuse = refuse
        self._inputs = {storage_key(tensor): i for i, tensor in enumerate(inputs)}

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op, unless it writes to an input."""
        for tensor in written_arguments(func, args, kwargs):
            index = self._inputs.get(storage_key(tensor))
            if index is not None:
                self._refuse(index)
        return func(*args, **kwargs)

    def run_higher_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a higher-order operator on copies of the inputs, and see whether they still are."""
        given: list[tuple[int, torch.Tensor, torch.Tensor]] = []

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            index = self._inputs.get(memory_key(tensor))
            if index is None:
                return tensor
            given.append((index, tensor, tensor.clone()))
            return given[-1][-1]

        args, kwargs = pytrees.tree_map_only(torch.Tensor, copied, (args, kwargs))
        found = super().run_higher_order(func, args, kwargs)
        for index, tensor, copy in given:
            if written_copies([tensor], [copy]):
                self._refuse(index)
        return found

    def unseen(self, func: Any) -> None:
        """Nothing is missing: the copies tell."""


class CallWatch(CallMode):
    """Sees ``torch.autograd.grad`` without ``create_graph``, whose results are constants.

    In an abstract evaluation (``swaps``) it also looks at the modules that call torch, and stops
    the function from reading values of real tensors.
    """

    def __init__(self, observed: Observed, swaps: SwapWatch | None = None) -> None:
        super().__init__()
        self._observed = observed
        self._swaps = swaps

    def notice(self, func: Any) -> None:
        """A higher-order operator runs."""
        self._observed.higher_order = True

    def going_back(self, recorded: bool) -> None:
        """Autograd goes back inside."""
        self._observed.grads_inside |= not recorded

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a torch function, unless it reads values."""
        self._observed.switches_grad |= func is set_grad_enabled
        if self._swaps is not None:
            self._swaps.look_at_modules()
            # As a constant in a graph, such a value would stay what it was when this was traced.
            if reads_values(func, args):
                raise ValuesReadError("the function reads values of a tensor that it closes over")
        return func(*args, **kwargs)
