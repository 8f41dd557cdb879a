"""From a plan and a function to the op that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..choices import GRAPH_BACKENDS
from ..errors import MutationError
from ..planner.plan import CallPlan
from .closure.closure_state import ClosureState
from .functions.call_locks import NO_CALL_LOCKS, CallLocks
from .functions.contract_terms import NO_TERMS, Terms
from .functions.declared_writes import with_writes
from .functions.tensor_function import TensorFunction
from .functions.traced_flags import with_flags
from .handler.torch_context import TorchContext
from .observe.abstract_evaluation import FlatCall
from .observe.guarded_run import Guarded
from .observe.undeclared_randomness import Noticed
from .observe.watched_run import Observed
from .op.graph_backend import graph_program
from .op.make_op import op_of_program, register_op
from .op.program import Program
from .op.results_in_place import ResultsInPlace, copied, unfit
from .op.torch_op import Function, Keeper, TorchOp
from .op_family import OpFamily
from .randomness.generator_seeding import with_key
from .randomness.generator_states import NO_GENERATORS, Generators


def build_op(
    plan: CallPlan,
    function: FlatCall,
    run: Callable[..., Any],
    observed: Observed,
    closure: ClosureState,
    context: TorchContext,
    device: str,
    x64: bool,
    *,
    keeper: Keeper,
    recipe: Callable[[], str],
    stateful: bool,
    terms: Terms = NO_TERMS,
    notices: set[str],
    call_locks: CallLocks = NO_CALL_LOCKS,
    generators: Generators = NO_GENERATORS,
    mutated: Sequence[int] = (),
    writing: FlatCall | None = None,
    run_out: Callable[..., Any] | None = None,
    compiled: FlatCall | None = None,
) -> TorchOp:
    """Register the planned function.

    Args:
        plan: What was decided.
        function: Flat tensors to flat leaves and structure.
        run: The same from flat tensors to flat results alone, as fast as can be.
        observed: What the function did while it was watched.
        closure: What the function closes over.
        context: Torch's settings to run under.
        device: ``cpu`` or ``cuda``: where to evaluate abstractly.
        x64: Whether JAX holds 64-bit dtypes.
        keeper: Where the JAX side keeps compiled programs; the caller holds it.
        recipe: Gives what another process plans the same from.
        stateful: Functions with the same code and constants may still differ.
        terms: What the contract says of derivatives and batches.
        notices: What the caller of this callable has been warned of.
        call_locks: What its calls hold while they run.
        generators: What it draws from, besides torch's global generators.
        run_out: ``run`` with tensors to write the results to behind the inputs (``out=``).
        mutated: Inputs that ``run`` writes to, as declared; their new values are its last results.
        writing: ``function`` without copies of these.
        compiled: ``function`` compiled, with its derivative.
    """
    # Not where torch compiles the function as a whole, these operators with it.
    if terms.backend != "compile" and (plan.inference.higher_order or observed.higher_order):
        context = replace(context, by_code=True)
    seeds = () if plan.random_key is None else (plan.random_key,)
    fn = TensorFunction(
        plan.label,
        plan.key,
        lambda *tensors: function(*tensors)[0],
        plan.inputs,
        plan.outputs,
        plan.inference,
        tuple(observed.updated),
        closure,
        context,
        device,
        x64,
        terms,
        stateful=stateful,
        # Where fused kernels could not be evaluated as fakes, graphs do without them as well.
        plain_attention=plan.inference.how == "fake-plain-attention",
        notices=notices,
        call_locks=call_locks,
        generators=generators,
        seeds=seeds,
    )
    if compiled is not None:
        pair = (fn.core, lambda *tensors: compiled(*tensors)[0])
        fn = replace(fn, compiled=pair)
    if writing is not None:
        fn = with_writes(fn, plan.mutates, mutated, lambda *tensors: writing(*tensors)[0])
    fn = with_flags(fn)
    family, role = OpFamily(keeper, recipe), Function(fn)
    # Before any alias: a graph sees declared writes on copies.
    if terms.backend in GRAPH_BACKENDS:
        return op_of_program(
            graph_program(fn),
            plan.label,
            plan.key,
            role,
            family,
            (),
            static=plan.static,
            contract=_contract_words(plan),
        )
    aliases = _aliases(plan, mutated)
    refused = _why_copied(plan, observed, terms, run_out)
    if refused:
        how = copied(plan.outputs, refused)
    else:
        count = len(plan.outputs)
        words = "in place, by the function's own `out=`"
        how = ResultsInPlace(run_out, tuple(range(count)), (words,) * count)
    body = _runner(plan, how.core or run, notices, mutated)
    if seeds:
        # The words of the key come behind the inputs.
        body = with_key(body, len(plan.inputs))
    # Not what runs here: derivatives and batches are made of it.
    program = Program(
        fn.core,
        fn.inputs,
        fn.outputs,
        fn,
        context,
        seeds=fn.seeds,
        eager=True,
    )
    return register_op(
        program,
        plan.label,
        plan.key,
        role,
        family,
        (),
        inputs=fn.operands,
        outputs=plan.outputs,
        # Around the seeding: until the generators are put back, nobody else may draw.
        run=call_locks.around(body, seeded=bool(seeds)),
        context=context,
        into=how.into,
        results=_with_aliases(how.words, plan, aliases),
        aliases=aliases,
        static=plan.static,
        # Only what autograd records can keep an input in C++ alone.
        hold_storages=context.grad and plan.inference.closes_over_grad,
        may_be_lazy=plan.inference.may_be_lazy,
        contract=_contract_words(plan),
    )


def _aliases(plan: CallPlan, mutated: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The arguments that are written to, and the results that are their new values.

    Not those that torch sees in another dtype: it writes to a copy then.

    Raises:
        MutationError: The function gives one another shape or dtype.
    """
    # New values come behind the function's own results.
    first = len(plan.outputs) - len(mutated)
    pairs = [(slot, first + number) for number, slot in enumerate(mutated)]
    for slot, result in pairs:
        before, after = plan.inputs[slot], plan.outputs[result]
        if (before.shape, before.torch_dtype) != (after.shape, after.torch_dtype):
            raise MutationError(
                f"{plan.label}, argument `{before.path}`: expected it to keep its shape and dtype, "
                f"{before.torch_dtype}{list(before.shape)}, since `mutates` declares that it is "
                f"written to in place; the function makes it {after.torch_dtype}"
                f"{list(after.shape)}. Return that as a result instead.",
                callable_name=plan.label,
            )
    return tuple(
        (slot, result)
        for slot, result in pairs
        if plan.inputs[slot].dtype == plan.inputs[slot].torch_dtype
        and plan.inputs[slot].dtype == plan.outputs[result].dtype
    )


def _with_aliases(
    words: Sequence[str], plan: CallPlan, aliases: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    found = list(words)
    for slot, result in aliases:
        found[result] = f"in place: what `{plan.inputs[slot].path}` becomes"
    return tuple(found)


def _why_copied(
    plan: CallPlan,
    observed: Observed,
    terms: Terms,
    run_out: Callable[..., Any] | None,
) -> str:
    """Why the function's own calls do not write their results in place, or the empty string."""
    if terms.outputs == "copy":
        return "execution.outputs is copy"
    if terms.outputs == "auto":
        return "the function's own code makes it"
    if run_out is None:
        return "the function's own code makes it, and takes no `out=`"
    if plan.mutates:
        return "the function writes to its arguments"
    if not plan.inference.seen:
        return "the function could not be evaluated abstractly"
    if observed.records:
        return "autograd records what makes it"
    return next(filter(None, (unfit(sig, terms.outputs, 0) for sig in plan.outputs)), "")


def _contract_words(plan: CallPlan) -> str:
    """What a failure says of the contract: the sizes it has bound, and where it stands."""
    sizes = ", ".join(f"{name}={size}" for name, size in plan.sizes)
    words = [f"Sizes: {sizes}."] if sizes else []
    return " ".join([*words, f"[{plan.source}]"]) if plan.source else ""


def _runner(
    plan: CallPlan, run: Callable[..., Any], notices: set[str], mutated: Sequence[int]
) -> Callable[..., Any]:
    casts = [
        (index, getattr(torch, sig.torch_dtype))
        for index, sig in enumerate(plan.inputs)
        if sig.torch_dtype != sig.dtype
    ]
    if casts:
        # Innermost: what is looked at below are the inputs that XLA owns, not casts of them.
        run = _with_casts(run, casts)
    # An abstract evaluation has shown that the inputs are left alone. Nothing else has: what a
    # function does that looks at values may change from call to call.
    if plan.inference.seen:
        return run
    # Planned without a run, so that whether it draws shows in its first call.
    if plan.inference.how in ("contract", "declared") and plan.random_key is None:
        run = Noticed(run, plan.label, notices)
    return Guarded(
        run,
        plan.label,
        plan.inputs,
        # A call that was planned by running it has had its run on copies.
        first_on_copies=plan.inference.how != "call",
        declared=mutated,
    )


def _with_casts(
    run: Callable[..., Any], casts: Sequence[tuple[int, torch.dtype]]
) -> Callable[..., Any]:
    def cast_and_run(*tensors: torch.Tensor) -> Any:
        arguments = list(tensors)
        for index, dtype in casts:
            arguments[index] = tensors[index].to(dtype)
        return run(*arguments)

    return cast_and_run
