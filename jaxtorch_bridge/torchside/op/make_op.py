"""From a program, or from a function's own run, to an op in the native table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from ..._compat.torch.capture.graphs import constants_of
from ...dtypes import DTYPES
from ...planner.array_signature import ArraySig
from ...planner.op_steps import Steps
from ..closure.closure_state import ClosureState
from ..handler.failure_messages import Faults
from ..handler.native_module import native
from ..handler.torch_context import InContext, TorchContext
from .aten_steps import Read, read_for_xla
from .command_buffers import NOT_ASKED, Recording, recording_of
from .compiled_graph import compiled
from .direct_calls import with_direct_calls
from .program import Program
from .results_in_place import copied, write_in_place
from .stream_order import is_ordered
from .torch_op import Family, Role, TorchOp


def op_of_program(
    program: Program,
    label: str,
    key: str,
    role: Role,
    family: Family,
    steps: Steps,
    *,
    static: Sequence[tuple[str, str]] = (),
    contract: str = "",
    by_torch: bool = False,
) -> TorchOp:
    """The op that runs a program.

    Args:
        program: What to run.
        label: Name for messages.
        key: Of the native table.
        role: What it is to other ops.
        family: What derives from it and what batches it.
        steps: How it derives from the function's own op.
        static: Static arguments, for messages.
        contract: What messages say of the contract.
        by_torch: Torch runs it, as a part of a program that is otherwise JAX operations.
    """
    home = program.home
    run: Callable[..., Any]
    core: Any = program.core
    for_xla = home.terms.backend == "xla"
    read = read_for_xla(program, label) if for_xla and not by_torch else None
    if for_xla:
        how = copied(program.outputs, "torch makes it" if by_torch else "XLA makes it")
        # Its code itself: a module's call looks for hooks, of which there are none.
        run = program.runner(core.forward if isinstance(core, fx.GraphModule) else core)
    elif home.terms.backend == "compile" and not program.eager:
        how = copied(program.outputs, "torch.compile makes it")
        # Another core than the program's own; no buffers come behind the operands, as `into` is
        # empty.
        run = program.runner(compiled(program.core))
    else:
        how = write_in_place(
            program.core, program.outputs, program.device, home.terms.outputs, program.writing
        )
        core = how.core or core
        if isinstance(core, fx.GraphModule):
            core = with_direct_calls(core).forward
        run = program.runner(core)
    # Generator states that are taken or given must not be changed by others meanwhile.
    states = bool(program.seeds) or program.gives_states or program.repeats_draws
    return register_op(
        program,
        label,
        key,
        role,
        family,
        steps,
        inputs=program.operands,
        outputs=program.results,
        # The first run of a graph that is compared with the function runs its Python code as well.
        run=home.call_locks.around_program(
            run, eager=program.eager or home.compare is not None, states=states
        ),
        context=_context(program),
        into=how.into,
        results=how.words,
        static=static,
        contract=contract,
        # A graph computes below autograd, which then keeps no input.
        hold_storages=program.eager,
        read=read,
        recording=recording_of(program),
    )


def _context(program: Program) -> TorchContext:
    """Torch's settings to run under."""
    core = program.core
    if isinstance(core, fx.GraphModule) and not any(
        constant.requires_grad for constant in constants_of(core)
    ):
        # Autograd has nothing to record, and the thread's settings are left as they mostly are.
        return program.context.with_grad()
    return program.context


def register_op(
    program: Program,
    label: str,
    key: str,
    role: Role,
    family: Family,
    steps: Steps,
    *,
    inputs: Sequence[ArraySig],
    outputs: Sequence[ArraySig],
    run: Callable[..., Any],
    context: TorchContext,
    into: Sequence[int] = (),
    results: Sequence[str] = (),
    aliases: Sequence[tuple[int, int]] = (),
    static: Sequence[tuple[str, str]] = (),
    contract: str = "",
    hold_storages: bool = False,
    may_be_lazy: bool = True,
    read: Read | None = None,
    recording: Recording = NOT_ASKED,
) -> TorchOp:
    """Add an op to the native table, under the key or the key with a number.

    Args:
        program: What it computes.
        label: Name for messages.
        key: Of the native table.
        role: What it is to other ops.
        family: What derives from it and what batches it.
        steps: How it derives from the function's own op.
        inputs: Flat inputs.
        outputs: Flat outputs.
        run: From tensors over the inputs to results. Tensors over the buffers of ``into`` come
            behind the inputs.
        context: Torch's settings to run under.
        into: Outputs that ``run`` writes into XLA's buffers itself.
        results: For each output, how it gets into XLA's buffer, in words.
        aliases: Inputs that ``run`` writes to, each with the output that has its memory.
        static: Static arguments, for messages.
        contract: What messages say of the contract.
        hold_storages: Autograd may keep an input in C++ alone; see `native_src/op_table.h`.
        may_be_lazy: A result may carry a pending conjugation or negation.
        read: See `TorchOp`.
        recording: Likewise.
    """
    # Tuples: the native module takes nothing else for the last two.
    inputs, outputs, into, aliases = tuple(inputs), tuple(outputs), tuple(into), tuple(aliases)
    # By position, in the order of `RegisterOp` in native_src/module.cc.
    found, handle = _entered(
        key,
        program.home.closure,
        program.home.stateful,
        run,
        InContext(run, context),
        Faults(label, inputs, outputs, static, contract),
        # What torch returns, which the handler compares before it converts to JAX's dtypes.
        tuple(DTYPES[sig.torch_dtype].dlpack for sig in outputs),
        into,
        aliases,
        # The handler calls `run` itself only where this and the thread's own context are plain.
        context.plain,
        hold_storages,
        may_be_lazy,
        is_ordered(program),
    )
    return TorchOp(
        *(label, found, handle, inputs, outputs, role, program, family, steps),
        *(into, tuple(results), aliases, read, recording),
    )


def _entered(key: str, closure: ClosureState, stateful: bool, *rest: Any) -> tuple[str, Any]:
    """Enter into the native table; live ops that look alike are told apart by a number.

    It follows ``~`` where either will do for a program from elsewhere, as they belong to one
    callable or have no state, and ``#`` where they may differ.

    Returns:
        The key, and the handle that owns the entry.
    """
    number, mark = 1, "#"
    while True:
        name = key if number == 1 else f"{key}{mark}{number}"
        handle, closure_there = native().register_op(name, closure, *rest)
        if handle is not None:
            return name, handle
        # Who has the plain key settles the mark; from then on only the number counts up.
        if number == 1 and (closure_there is closure or not stateful):
            mark = "~"
        number += 1
