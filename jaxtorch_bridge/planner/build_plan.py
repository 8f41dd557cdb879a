"""Put a `CallPlan` together from facts; no array, no torch and no jax in sight."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..choices import Backend, VmapMethod
from ..dtypes import DTYPES, canonical_name, remark_on
from ..errors import DtypeError
from .array_signature import ArraySig, OutputMeta
from .concurrency import PARALLEL, Concurrency
from .output_inference import Inference
from .output_order import contract_order
from .plan import CallPlan

if TYPE_CHECKING:
    # At run time loaded where a contract is at hand: pydantic takes as long as all the rest.
    from ..spec.language.sizes import Sizes
    from ..spec.model import CallableSpec, TensorSpec

ContractPath = tuple[str, ...]


@dataclass(frozen=True)
class ArrayArgument:
    """One array leaf of a call, as the JAX side sees it."""

    path: str
    contract_path: ContractPath
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class CallFacts:
    """What the decorator knows of a call before planning.

    Attributes:
        name: The callable's name.
        code: Digest of its code.
        arrays: The array leaves.
        static: The static leaves as (path, text) pairs.
        context: Torch's thread-local settings, likewise.
        x64: Whether JAX holds 64-bit dtypes.
        values: The static arguments that were passed, whole, by the parameters' names.
        random_key: The random key of the call, if it has one.
        mutates: The arguments that the function writes to, as declared.
        copies: Those of which it gets a copy of its own, likewise.
    """

    name: str
    code: str
    arrays: tuple[ArrayArgument, ...]
    static: tuple[tuple[str, str], ...]
    context: tuple[tuple[str, str], ...]
    x64: bool
    values: Mapping[str, object] = field(default_factory=dict)
    random_key: ArraySig | None = None
    mutates: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


def plan_inputs(
    spec: CallableSpec | None, facts: CallFacts
) -> tuple[tuple[ArraySig, ...], Sizes | None]:
    """Check a call against its contract and say what torch is to see of each array.

    Raises:
        SpecMismatchError: The call does not fit the contract.
        DtypeError: An array has a dtype that torch does not have.
    """
    for array in facts.arrays:
        if array.dtype not in DTYPES:
            raise DtypeError(_no_torch_dtype(facts.name, array))
    if spec is None:
        return tuple(_free_input(array) for array in facts.arrays), None
    # Here: a program without contracts starts without pydantic.
    from ..spec.enforce.inputs import bind_inputs
    from ..spec.enforce.static_arguments import check_static

    check_static(spec, facts.values)
    leaves = {array.contract_path: (array.shape, array.dtype) for array in facts.arrays}
    sizes = bind_inputs(spec, leaves, x64=facts.x64)
    declared, chosen = dict(spec.input_leaves()), dict(sizes.dtypes)
    return tuple(
        _declared_input(array, declared[array.contract_path], chosen[array.contract_path])
        if array.contract_path in declared
        # Not listed: only a contract in annotations lets such an array pass.
        else _free_input(array)
        for array in facts.arrays
    ), sizes


def contract_outputs(
    spec: CallableSpec | None, sizes: Sizes | None
) -> tuple[OutputMeta, ...] | None:
    """The outputs as the contract alone gives them, or None if it leaves something open."""
    if spec is None or sizes is None or not spec.outputs:
        return None
    # Here: a program without contracts starts without pydantic.
    from ..spec.enforce.outputs import resolve_outputs

    resolved = resolve_outputs(spec, sizes)
    if resolved is None:
        return None
    return tuple(OutputMeta(shape, dtype) for _, shape, dtype in resolved)


def plan_call(
    spec: CallableSpec | None,
    facts: CallFacts,
    inputs: tuple[ArraySig, ...],
    sizes: Sizes | None,
    inference: Inference,
    output_paths: Sequence[tuple[str | int, ...]],
    vmap_method: VmapMethod = "torch_vmap",
    concurrency: Concurrency = PARALLEL,
    backend: Backend | None = None,
    *,
    paired: bool = False,
) -> CallPlan:
    """The frozen plan of a call.

    Args:
        spec: The contract, or None.
        facts: What is known of the call.
        inputs: As `plan_inputs` gave them.
        sizes: Likewise.
        inference: How the outputs were found, and which.
        output_paths: Where each flat output stands in the function's result.
        vmap_method: What ``jax.vmap`` does.
        concurrency: What was decided about calls at the same time.
        backend: What runs the function; None: what the contract says.
        paired: The result comes in a pair with others, of which the contract says nothing.

    Raises:
        SpecMismatchError: The outputs found do not fit the contract.
        DtypeError: An output has a dtype that JAX does not have.
    """
    leaves = () if spec is None else spec.output_leaves()
    mutates = facts.mutates
    if backend is None:
        backend = "auto" if spec is None else spec.execution.backend
    order = contract_order(
        spec.label if spec else facts.name,
        [path for path, _ in leaves],
        own_paths(output_paths, paired=paired),
        () if spec is None else counts_behind(spec, mutates),
    )
    if spec is not None and sizes is not None and leaves:
        # Here: a program without contracts starts without pydantic.
        from ..spec.enforce.outputs import check_outputs

        # The sizes are those from here on: outputs may bind names that no input has.
        found = [(meta.shape, meta.torch_dtype) for meta in inference.outputs]
        found = found[: len(own_paths(output_paths, paired=paired))]
        in_order = found if order is None else [found[index] for index in order]
        sizes = check_outputs(spec, sizes, in_order, x64=facts.x64, when="when tracing")
    # No order: nothing is declared, since other counts were refused above.
    declared = {} if order is None else {flat: leaves[i] for i, flat in enumerate(order)}
    outputs = tuple(
        _output(facts, path, meta, declared.get(index))
        for index, (path, meta) in enumerate(zip(output_paths, inference.outputs, strict=True))
    )
    return CallPlan(
        name=facts.name,
        version=version_of(spec),
        code=facts.code,
        inputs=inputs,
        static=facts.static,
        outputs=outputs,
        inference=inference,
        sizes=tuple(sizes.named.items()) if sizes else (),
        context=facts.context,
        derivative=_derivative_words(inputs, outputs, spec, backend),
        mutates=mutates,
        copies=facts.copies,
        bounds=() if spec is None else tuple(_bound_words(spec)),
        vmap_method=vmap_method,
        contract=spec.digest() if spec else "",
        source=spec.where("") if spec else "",
        concurrency=concurrency,
        backend="eager" if backend == "auto" else backend,
        random_key=facts.random_key,
    )


def _bound_words(spec: CallableSpec) -> Iterator[str]:
    for bound in spec.bounds.values():
        more = "an error" if bound.overflow == "error" else "cut off"
        counts = [".".join(path) for path, name in spec.counts.items() if name == bound.name]
        counted = f"; how many there are is `{counts[0]}`" if counts else ""
        yield f"{bound}: results are filled up to that, more is {more}{counted}"


def version_of(spec: CallableSpec | None) -> str:
    """The version in op keys; ``0`` without a contract that has one."""
    # By the label: a contract in annotations has a version for its form's sake, and does not show
    # it.
    return (spec.label.partition("@")[2] if spec else "") or "0"


def own_paths(
    paths: Sequence[tuple[str | int, ...]], *, paired: bool
) -> list[tuple[str | int, ...]]:
    """The paths of a function's own results, which are the first of a pair if there is one."""
    return [path[1:] for path in paths if path[0] == 0] if paired else list(paths)


def counts_behind(spec: CallableSpec, mutates: Sequence[str]) -> Collection[ContractPath]:
    """The counts that may stand behind what torch returned: none where new values do."""
    return () if mutates else spec.counts


def declared_outputs(
    spec: CallableSpec,
    output_paths: Sequence[tuple[str | int, ...]],
    mutates: Sequence[str],
) -> list[tuple[ContractPath, TensorSpec]] | None:
    """The contract's outputs in the order of the flat results; None if counts differ.

    Args:
        spec: The contract.
        output_paths: Where each flat result stands.
        mutates: The arguments that the function writes to.

    Raises:
        SpecMismatchError: The results have other names.
    """
    leaves = spec.output_leaves()
    counts = counts_behind(spec, mutates)
    order = contract_order(spec.label, [path for path, _ in leaves], output_paths, counts)
    if order is None:
        return None
    by_flat = {flat: leaves[number] for number, flat in enumerate(order)}
    return [by_flat[flat] for flat in range(len(leaves))]


def _free_input(array: ArrayArgument) -> ArraySig:
    row = DTYPES[array.dtype]
    return ArraySig(array.path, array.shape, array.dtype, array.dtype, row.differentiable)


def _declared_input(array: ArrayArgument, declared: TensorSpec, chosen: str) -> ArraySig:
    row = DTYPES[array.dtype]
    # Narrowed floats stay narrow: JAX computes in 32 bits while x64 is off, and so does torch.
    # Integers become what the contract says, since torch insists on int64 labels and indices.
    seen = chosen if row.kind == "int" else array.dtype
    return ArraySig(
        array.path, array.shape, array.dtype, seen, row.differentiable and declared.differentiable
    )


def _output(
    facts: CallFacts,
    path: tuple[str | int, ...],
    meta: OutputMeta,
    declared: tuple[ContractPath, TensorSpec] | None,
) -> ArraySig:
    name = _path_text(path if declared is None else declared[0])
    if meta.torch_dtype not in DTYPES:
        raise DtypeError(
            f"{facts.name}, output `{name}`: torch returned {meta.torch_dtype}, which JAX does not "
            f"have: {remark_on(meta.torch_dtype)}."
        )
    dtype = canonical_name(meta.torch_dtype, x64=facts.x64)
    fill = None if declared is None else declared[1].fill
    if dtype != meta.torch_dtype and type(fill) is int and not -(2**31) <= fill < 2**31:
        raise DtypeError(
            f"{facts.name}, output `{name}`: expected a fill that {dtype} holds, which JAX has for "
            f"{meta.torch_dtype} while jax_enable_x64 is off; got {fill}. Take another one, or set "
            "jax_enable_x64."
        )
    differentiable = DTYPES[dtype].differentiable and (
        declared is None or declared[1].differentiable
    )
    return ArraySig(name, meta.shape, dtype, meta.torch_dtype, differentiable)


def _path_text(path: Sequence[str | int]) -> str:
    if not path:
        return "output"
    first = path[0] if isinstance(path[0], str) else f"output[{path[0]}]"
    return first + "".join(f"[{part!r}]" for part in path[1:])


def _no_torch_dtype(name: str, array: ArrayArgument) -> str:
    return (
        f"{name}, argument `{array.path}`: dtype {array.dtype} cannot be handed to torch: "
        f"{remark_on(array.dtype)}. Cast it first, with `.astype(...)`."
    )


def _derivative_words(
    inputs: Sequence[ArraySig],
    outputs: Sequence[ArraySig],
    spec: CallableSpec | None,
    backend: Backend,
) -> str:
    if not any(sig.differentiable for sig in inputs):
        return "none: no differentiable input"
    if not any(sig.differentiable for sig in outputs):
        return "none: no differentiable output"
    if spec is not None and spec.vjp_depth == 0:
        return "none: the contract says `vjp_depth: 0`"
    if backend == "xla":
        return "JAX operations, made of the graph of torch's own derivative"
    if spec is not None and spec.residuals == "recompute":
        return "recompute: the backward runs the function again, as the contract says"
    return "tape: one run, whose record torch keeps for the backward (when one is first taken)"


def static_mapping(static: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Static arguments as stable text, for the plan and its digest."""
    return tuple((path, stable_text(value)) for path, value in static.items())


def stable_text(value: object) -> str:
    """Text of a static value that is the same in every process (no memory addresses)."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    try:
        text = repr(value)
    except Exception:  # code of the object's own, which is no part of the call
        text = " at 0x"
    # An address would give every process another digest, and programs from elsewhere no op.
    return f"<{type(value).__module__}.{type(value).__qualname__}>" if " at 0x" in text else text
