"""Batched forms of ops: one call instead of one call an element.

By ``torch.vmap``, or as the function stands where it is said to work along leading axes. There is
none where the contract says ``sequential``, or where torch cannot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...choices import VmapMethod
from ...errors import BatchingError
from ...planner.array_signature import with_batch
from ..closure.closure_guard import ClosureGuard
from ..derive.linear_call import Dims
from ..derive.linear_part import batched_linearized
from ..functions import transforms
from ..functions.graph_capture import NotCapturedError, capture, draws_of_batch
from ..functions.one_by_one_notice import warn_one_by_one
from ..functions.replaced_ops import with_right_batches
from ..functions.tensor_function import Core, TensorFunction
from ..observe.guarded_run import Guarded
from ..op.make_op import op_of_program
from ..op.program import Program, Undo, program_of
from ..op.torch_op import Function, LinearOp, Role, SavingForward, TorchOp, WithTangents
from .leading_axes import (
    CLAIMS,
    Verified,
    claimed,
    passed,
    refuse_shared_draws,
    refuse_wrong_shapes,
)

# By whether there is a key.
_SEED_WORDS = {False: "generator states", True: "a random key"}


@dataclass(eq=False, repr=False)
class Batched:
    """The batched form of an op.

    Attributes:
        size: Of the batch.
        op: Results have the batch first. None: there is no such form.
        unbatched: Positions of results that have no batch axis, also when called one by one.
        failure: Why there is none.
        guard: Tells when a captured graph is out of date.
        way: How it is computed, in words.
    """

    size: int
    op: TorchOp | None
    unbatched: tuple[int, ...]
    failure: str
    guard: ClosureGuard | None
    way: str = ""

    @property
    def fresh(self) -> bool:
        """Whether the function's surroundings are still those that were traced."""
        return self.guard is None or self.guard.holds

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`, on a batch of a size."""
        if self.op is not None:
            return (f"{self.size}: {self.way}",)
        return (f"{self.size}: one call an element: {self.failure}",)


def batch(op: TorchOp, size: int, dims: Dims, loop: bool) -> Batched:
    """The op for a batch of ``size``.

    Args:
        op: Of one element.
        size: Of the batch.
        dims: For each input its batch axis, or None.
        loop: Call one by one, inside of torch, where one call will not do.
    """
    failure = ""
    home, role = op.home, op.role
    # A linear op is a graph, which has a guard of its own.
    linear = isinstance(role, LinearOp)
    guard = op.program.guard if linear else ClosureGuard(home.closure)
    method = home.terms.vmap_method
    # Keys, states and versions of weights stand behind the inputs of the core.
    own_seeds = any(dim is not None for dim in dims[len(op.program.inputs) :])
    # Nobody who asks for other numbers in each element has to be told.
    own_keys = own_seeds and home.keyed
    made = None
    unbatched: tuple[int, ...] = ()
    if op.program.batched_core is not None:
        made = _batched_by_itself(op, size, dims, method in ("sequential", "sequential_unrolled"))
    elif method in ("sequential", "sequential_unrolled"):
        failure = f"`vmap_method: {method}`"
        if loop and isinstance(role, Function):
            made = _looped(op, role.fn, size, dims)
    elif own_seeds:
        # One call draws from one state.
        failure = f"each element has {_SEED_WORDS[home.keyed]} of its own"
    else:
        try:
            if not isinstance(role, Function):
                made = _batched_part(op, size, dims)
            elif method in CLAIMS and role.fn.order == 0:
                made = _claimed(op, role.fn, size, dims[: len(role.fn.inputs)])
            else:
                unbatched = _unbatched_results(op, dims)
                made = _batched_function(op, role.fn, size, dims, unbatched)
        # Said in words, and not raised: JAX then calls one element after the other.
        except NotCapturedError as error:
            failure = str(error)
            if loop and isinstance(role, Function):
                made = _looped(op, role.fn, size, dims)
    if made is None:
        asked = method in ("sequential", "sequential_unrolled") or own_keys
        # A batch of none calls torch for no element.
        if size and not asked:
            warn_one_by_one(home, op.label, failure)
        unbatched = _unbatched_results(op, dims)
        return Batched(size, None, unbatched, failure, guard)
    # Generator states and versions are of the one call, whatever the batch.
    extras = len(made.program.extra_results)
    count = len(made.outputs)
    return Batched(
        size, made, (*unbatched, *range(count - extras, count)), "", guard, _way(method, made)
    )


def _way(method: VmapMethod, made: TorchOp) -> str:
    """How a batch is computed, for `explain`."""
    # The claim is of the function itself; its derivatives go by torch.vmap.
    if method not in CLAIMS or made.fn is None or made.fn.order:
        return "one call by torch.vmap"
    checked = ", first compared with single calls" if made.fn.terms.verify else ""
    return f"one call of the function as it stands (`vmap_method: {method}`){checked}"


def _claimed(op: TorchOp, fn: TensorFunction, size: int, dims: Dims) -> TorchOp:
    """The function as it stands, on whole batches."""
    method = fn.terms.vmap_method
    whole: Dims = (0,) * len(fn.outputs)
    core = claimed(fn.core, fn.inputs, dims, size, method)
    stand_ins = tuple(claimed(one, fn.inputs, dims, size, method) for one in fn.stand_ins)
    made = replace(
        fn,
        label=f"{fn.label} ({method})",
        key=f"{fn.key}/{method}{size}:{_dims_text(dims)}",
        core=core,
        stand_ins=stand_ins,
        inputs=with_batch(fn.inputs, dims, size),
        outputs=with_batch(fn.outputs, whole, size),
    )
    # A claim that is wrong is told while tracing, where it can be.
    refuse_wrong_shapes(made, passed(fn.inputs, dims, size, method), method)
    refuse_shared_draws(fn, method)
    if fn.terms.verify:
        if fn.inference.random:
            raise BatchingError(
                f"{fn.label}: `verify: true` compares a batch with single calls, but the "
                "function draws random numbers, so that no two calls agree."
            )
        single = transforms.looped(fn.core, dims, size)
        core = Verified(made.label, core, single, made.outputs, method)
    if not fn.inference.traced:
        # Writes to inputs are looked for here, as in the function's own calls.
        core = Guarded(core, fn.label, fn.inputs, first_on_copies=False)
    program = Program(
        core, made.inputs, made.outputs, made, fn.context, seeds=made.seeds, eager=True
    )
    steps = op.then("batched", size, dims, False)
    return op_of_program(program, made.label, made.key, Function(made), op.family, steps)


def _batched_function(
    op: TorchOp, fn: TensorFunction, size: int, dims: Dims, unbatched: tuple[int, ...]
) -> TorchOp:
    if not fn.inference.traced:
        raise NotCapturedError("torch.vmap: the function could not be traced abstractly")
    if fn.closure.scripted:
        raise NotCapturedError(
            "torch.vmap: TorchScript runs it, which hides things from torch.func"
        )
    if fn.opaque:
        raise NotCapturedError("torch.vmap: no graph of the function could be captured")
    if fn.inference.updates_state:
        raise NotCapturedError("torch.vmap: the function writes to tensors that it closes over")
    if fn.inference.live_draws:
        raise NotCapturedError(f"torch.vmap: {fn.inference.live_draws}")
    core_dims = dims[: len(fn.inputs)]
    out_dims: Dims = tuple(None if i in unbatched else 0 for i in range(len(fn.outputs)))
    # Where only tangents are batched, the function itself runs once and draws once.
    moving = any(dim is not None for dim in core_dims[: fn.primal_count])
    draws = draws_of_batch(fn, moving)

    def mapped(function: Core) -> Core:
        # Before torch.vmap sees it: of its `select_scatter` torch gets the derivative wrong.
        function = with_right_batches(function)
        return transforms.batched(function, core_dims, out_dims, draws=draws)

    core = mapped(fn.core)
    one_by_one = None
    # One by one it might draw other numbers, and its results would all have a batch axis.
    if size and not fn.may_draw and not unbatched:
        one_by_one = core, transforms.looped(fn.loop or fn.core, core_dims, size)
    made = replace(
        fn,
        label=f"{fn.label} (vmap)",
        key=f"{fn.key}/vmap{size}:{_dims_text(core_dims)}",
        core=core,
        one_by_one=one_by_one,
        stand_ins=tuple(map(mapped, fn.stand_ins)),
        inputs=with_batch(fn.inputs, core_dims, size),
        outputs=with_batch(fn.outputs, out_dims, size),
    )
    program = _program_of_stand_ins(made)
    steps = op.then("batched", size, dims, False)
    return op_of_program(program, made.label, made.key, Function(made), op.family, steps)


def _program_of_stand_ins(fn: TensorFunction) -> Program:
    """Of the first stand-in that can be traced, else of the function as it stands."""
    for stand_in in fn.stand_ins:
        with contextlib.suppress(NotCapturedError):
            return program_of(fn, stand_in)
    return program_of(fn)


def _unbatched_results(op: TorchOp, dims: Dims) -> tuple[int, ...]:
    """Where only tangents are batched (a Jacobian), the function's own results are not."""
    if not isinstance(op.role, WithTangents):
        return ()
    function = op.role.op
    places = function.family.pushforward(function, op.role.wrt).operands
    # The function's own inputs; the other operands are tangents.
    moving = [dims[i] for i, index in enumerate(places) if index < len(function.inputs)]
    return () if any(dim is not None for dim in moving) else tuple(range(len(function.outputs)))


def _looped(op: TorchOp, fn: TensorFunction, size: int, dims: Dims) -> TorchOp:
    core_dims = dims[: len(fn.inputs)]
    draws_on = fn.device if fn.keyed else None

    def looped(function: Core) -> Core:
        return transforms.looped(function, core_dims, size, draws_on=draws_on)

    made = replace(
        fn,
        label=f"{fn.label} (one by one)",
        key=f"{fn.key}/loop{size}:{_dims_text(core_dims)}",
        core=looped(fn.core),
        stand_ins=tuple(map(looped, fn.stand_ins)),
        inputs=with_batch(fn.inputs, core_dims, size),
        outputs=with_batch(fn.outputs, (0,) * len(fn.outputs), size),
        opaque=True,
    )
    # Only derivatives go one by one in here: they repeat a run, and leave nothing behind.
    program = replace(program_of(made), undo=Undo.of(fn))
    steps = op.then("batched", size, dims, True)
    return op_of_program(program, made.label, made.key, Function(made), op.family, steps)


def _batched_by_itself(op: TorchOp, size: int, dims: Dims, one_by_one: bool) -> TorchOp:
    """Of a pullback that has a tape, which batches of cotangents go through."""
    program = op.program
    if program.batched_core is None:
        raise AssertionError("only such a program")
    inputs = with_batch(program.inputs, dims, size)
    outputs = with_batch(program.outputs, (0,) * len(program.outputs), size)
    made = replace(
        program,
        core=program.batched_core(size, one_by_one),
        inputs=inputs,
        outputs=outputs,
        batched_core=None,
        writing=None,
    )
    key = f"{op.key}/{'loop' if one_by_one else 'vmap'}{size}:{_dims_text(dims)}"
    steps = op.then("batched", size, dims, False)
    return op_of_program(made, f"{op.label} (vmap)", key, op.role, op.family, steps)


def _batched_without_tape(op: TorchOp, size: int, dims: Dims) -> TorchOp:
    """Of a forward that keeps a tape: the function alone, whose batched derivatives run again."""
    role = _batched_role(op, size, dims)
    base = role.linear.op if isinstance(role, SavingForward) else None
    if base is None:
        raise NotCapturedError("torch.vmap: the function itself cannot be batched")
    core, device = base.program.core, op.program.device
    # Each element has one, so that they can be cut as the batch is.
    given = with_batch(op.program.also_gives, (0,) * len(op.program.also_gives), size)

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        nothing = [
            torch.zeros(sig.shape, dtype=getattr(torch, sig.torch_dtype), device=device)
            for sig in given
        ]
        return [*core(*tensors), *nothing]

    program = replace(
        base.program,
        core=run,
        outputs=(*base.program.outputs, *given),
        gives_states=op.program.gives_states,
    )
    key = f"{op.key}/vmap{size}:{_dims_text(dims)}"
    steps = op.then("batched", size, dims, False)
    return op_of_program(program, f"{op.label} (vmap)", key, role, op.family, steps)


def _batched_part(op: TorchOp, size: int, dims: Dims) -> TorchOp:
    """Of a forward with residuals, or of a linear part: derivatives come from elsewhere."""
    program = op.program
    if program.also_gives:
        return _batched_without_tape(op, size, dims)
    core_dims = dims[: len(program.inputs)]
    inputs = with_batch(program.inputs, core_dims, size)
    outputs = with_batch(program.outputs, (0,) * len(program.outputs), size)
    fn = program.home
    if program.eager:
        raise NotCapturedError("torch.vmap: the function could not be traced abstractly")
    core = capture(
        fn,
        transforms.batched(
            program.core,
            core_dims,
            (0,) * len(program.outputs),
            draws=draws_of_batch(fn, moving=True),
        ),
        inputs,
        outputs,
        plain_attention=fn.plain_attention,
    )
    return op_of_program(
        # With the guard of the program: this graph is made of its graph.
        replace(program, core=core, inputs=inputs, outputs=outputs),
        f"{op.label} (vmap)",
        f"{op.key}/vmap{size}:{_dims_text(core_dims)}",
        _batched_role(op, size, dims),
        op.family,
        op.then("batched", size, dims, False),
    )


def _batched_role(op: TorchOp, size: int, dims: Dims) -> Role:
    """Of a part of a derivative, whose residuals have the batch first."""
    if not isinstance(op.role, SavingForward):
        return op.role
    linear: Any = op.role.linear
    function = linear.op
    base = None if function is None else function.family.batched(function, size, dims).op
    if base is None:
        raise NotCapturedError("torch.vmap: the function itself cannot be batched")
    # Generator states, which every program gives behind its core's results, are never batched.
    first_extra = len(function.outputs) + len(op.program.also_gives)
    residual_dims: Dims = tuple(
        None if index >= first_extra else 0
        for index in range(len(function.outputs), len(op.outputs))
    )
    return SavingForward(batched_linearized(linear, size, (*dims, *residual_dims), base))


def _dims_text(dims: Sequence[int | None]) -> str:
    return ",".join("-" if dim is None else str(dim) for dim in dims)
