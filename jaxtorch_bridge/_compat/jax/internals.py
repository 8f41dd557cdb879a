"""JAX internals: abstract values, sharding, lowering, partial evaluation, executables.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

# Public in documentation on custom primitives, but without a promise of stability.
from jax._src import core as _core
from jax._src import distributed as _distributed
from jax._src import sharding_impls as _sharding_impls
from jax._src import util as _util
from jax._src.array import ArrayImpl as ArrayImpl

# The same class as jax.extend.core.Primitive, whose package loads Pallas as well.
from jax._src.core import Primitive as Primitive
from jax._src.interpreters import partial_eval as partial_eval
from jax._src.interpreters.ad import LinearizeTrace as _LinearizeTrace
from jax._src.interpreters.ad import primitive_linearizations as _primitive_linearizations
from jax._src.lib import xla_client as _xla_client  # type: ignore[attr-defined]
from jax._src.lib.mlir.dialects import hlo as _hlo  # type: ignore[attr-defined]
from jax.interpreters import ad as ad
from jax.interpreters import batching as batching
from jax.interpreters import mlir as mlir

# What stands for the batch axis of an operand that has none.
not_mapped = None


def is_zero(tangent: Any) -> bool:
    """Whether a tangent or cotangent is symbolically zero (also JAX's float0 arrays)."""
    return type(tangent) is ad.Zero or getattr(tangent, "dtype", None) == jax.dtypes.float0


def zero_tangent_of(aval: Any) -> Any:
    """The symbolic zero in the tangent space of ``aval``: float0 for ints and bools."""
    return ad.Zero(aval.to_tangent_aval())


def aval_of(value: Any) -> Any:
    """The abstract value of an array, a tracer or an undefined primal."""
    return value.aval if ad.is_undefined_primal(value) else jax.typeof(value)


def concrete_value(value: Any) -> Any | None:
    """The array behind a value, or None where there is only a type (under ``jit``).

    ``jax.grad`` outside of ``jit`` calls the function with tracers that hold real arrays.
    """
    if isinstance(value, jax.core.Tracer):
        # The value of a tracer may be a tracer once more, of a transformation around this one.
        found = _core.to_concrete_value(value)
        return None if isinstance(found, jax.core.Tracer) else found
    return value


def output_avals(
    outputs: Sequence[tuple[tuple[int, ...], str]], operands: Sequence[Any]
) -> list[Any]:
    """Abstract results for the given (shape, dtype) pairs of a call on ``operands``.

    Under ``shard_map(check_vma=True)`` a result varies over every mesh axis that an operand
    varies over; forgetting that would lose the ``psum`` in gradients of replicated inputs.
    """
    varying = _varying_axes(operands)
    extra: dict[str, Any] = {"sharding": _core.get_cur_mesh_sharding()}
    if varying:
        extra["manual_axis_type"] = _core.ManualAxisType(varying=varying)
    return [_core.ShapedArray(shape, jax.numpy.dtype(dtype), **extra) for shape, dtype in outputs]


def with_equal_variance(operands: Sequence[Any]) -> list[Any]:
    """The operands, all made to vary over the mesh axes that any of them varies over.

    JAX's own primitives do so before they bind; the transpose of that is the ``psum``.
    """
    avals = [jax.typeof(operand) for operand in operands]
    wanted = _varying_axes(avals)
    if not wanted:
        return list(operands)
    return [
        jax.lax.pcast(operand, tuple(missing), to="varying")
        if (missing := wanted - _varying_axes([aval]))
        else operand
        for operand, aval in zip(operands, avals, strict=True)
    ]


def _varying_axes(avals: Sequence[Any]) -> frozenset[Any]:
    found: frozenset[Any] = frozenset()
    for aval in avals:
        found = found | aval.mat.varying
    return found


def explicit_layout(array: Any) -> tuple[tuple[str, ...], ...]:
    """For each dimension of an array, tracer or shape, the explicit mesh axes it is sharded along.

    What ``Auto`` axes do is not known while tracing, and not told here.
    """
    sharding = _type_sharding(array)
    rank = len(array.shape)
    if sharding is None:
        return ((),) * rank
    found = [_as_axes(entry) for entry in sharding.spec]
    return (*found, *(((),) * (rank - len(found))))


def mesh_of(arrays: Sequence[Any]) -> Any:
    """The (abstract) mesh that the types of some arrays name; None if there is none."""
    for array in arrays:
        sharding = _type_sharding(array)
        if sharding is not None and any(explicit_layout(array)):
            return sharding.mesh
    return None


def manual_axes_of(mesh: Any) -> tuple[str, ...]:
    """The axes of a mesh of which the arrays are parts already, inside of `jax.shard_map`."""
    manual = jax.sharding.AxisType.Manual
    return tuple(
        axis for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind is manual
    )


def watch_sharding(
    context: Any, value: Any, rank: int, callback: Callable[[tuple[int, ...]], None]
) -> None:
    """Have XLA say, when it has partitioned a program, into how many parts it cut an operand.

    As in `jax.debug.inspect_array_sharding`, an exception in ``callback`` fails the compilation.

    Args:
        context: Of a lowering rule.
        value: The operand.
        rank: Its number of dimensions.
        callback: Called with the number of parts of each dimension, if any is cut.
    """

    def tell(sharding: Any) -> None:
        # Whole, on one device, or cut by JAX itself (`shard_map`).
        if sharding.is_replicated() or sharding.is_manual() or sharding.is_maximal():
            return
        parts = tuple(sharding.tile_assignment_dimensions()[:rank])
        if any(count > 1 for count in parts):
            callback(parts)

    # No more than the address of `tell`: the module has to keep it alive.
    key = _xla_client.encode_inspect_sharding_callback(tell)
    context.module_context.add_keepalive(tell)
    _hlo.CustomCallOp(
        [value.type],
        [value],
        # The target of `jax.debug.inspect_array_sharding`, which XLA itself knows.
        call_target_name=mlir.ir.StringAttr.get("InspectSharding"),
        has_side_effect=mlir.ir.BoolAttr.get(True),
        api_version=mlir.i32_attr(1),
        called_computations=mlir.ir.ArrayAttr.get([]),
        backend_config=mlir.ir.StringAttr.get(key),
        operand_layouts=None,
        result_layouts=None,
    )


def is_exported(context: Any) -> bool:
    """Whether a program is being lowered for `jax.export`, so that it will leave the process."""
    return bool(context.module_context.lowering_parameters.for_export)


def cuts_are_left_to_xla(context: Any) -> bool:
    """Whether XLA decides how operands are cut: several devices, and ``Auto`` mesh axes."""
    axis_context = context.module_context.axis_context
    if isinstance(axis_context, _sharding_impls.SPMDAxisContext):
        return axis_context.manual_axes != frozenset(axis_context.mesh.axis_names)
    if getattr(axis_context, "num_devices", 1) == 1:
        return False
    meshes = [aval.sharding.mesh for aval in context.avals_in if hasattr(aval, "sharding")]
    auto = jax.sharding.AxisType.Auto
    return any(mesh.empty or auto in mesh.axis_types for mesh in meshes)


def _type_sharding(array: Any) -> Any:
    if isinstance(array, (_core.Tracer, ArrayImpl, _core.AbstractValue)):
        aval = array if isinstance(array, _core.AbstractValue) else jax.typeof(array)
        return getattr(aval, "sharding", None)
    found = getattr(array, "sharding", None)
    return found if isinstance(found, jax.sharding.NamedSharding) else None


def _as_axes(entry: Any) -> tuple[str, ...]:
    if entry is None or entry is jax.sharding.PartitionSpec.UNCONSTRAINED:
        return ()
    return tuple(entry) if isinstance(entry, (tuple, list)) else (entry,)


def wait_for(array: Any) -> None:
    """Return when an array has been computed; at once in the common case that it has."""
    if not array.is_ready():
        array.block_until_ready()


def hold_weakly(kind: type) -> None:
    """Let JAX's caches of abstract evaluation refer to objects of this class only weakly.

    Equations carry the op as a parameter; held strongly, the newest few thousand would never
    be freed.
    """
    _util.weakref_cache_key_types.add(kind)


def jit_is_disabled() -> bool:
    """Whether the caller is under `jax.disable_jit`."""
    return bool(jax.config.jax_disable_jit)  # type: ignore[attr-defined]


def cuda_versions() -> tuple[int, int] | None:
    """The CUDA runtime and the cuDNN that JAX has loaded, as those libraries number themselves."""
    from jax._src.lib import cuda_versions as found

    if found is None:
        return None
    return int(found.cuda_runtime_get_version()), int(found.cudnn_get_version())


def ask_for_cpu_devices(count: int) -> None:
    """Have JAX split the CPU into at least ``count`` devices, if it has not started yet."""
    if count > max(1, jax.config.jax_num_cpu_devices):  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # it has started
            jax.config.update("jax_num_cpu_devices", count)


def keep_alive_with(context: Any, thing: Any) -> None:
    """Hold ``thing`` as long as the program that is being lowered in ``context``.

    Not for `jax.export`: an exported program leaves the process, and JAX refuses to serialise
    one that holds anything here.
    """
    if not is_exported(context):
        context.module_context.add_keepalive(thing)


def device_count_of(context: Any) -> int:
    """How many devices the program that is being lowered in ``context`` runs on."""
    found = context.module_context.axis_context
    mesh = getattr(found, "mesh", None)
    return int(getattr(found, "num_devices", 1) if mesh is None else mesh.size)


def shared_store() -> Any | None:
    """The key-value store of `jax.distributed`; None where that was not initialised."""
    return _distributed.global_state.client


def known_value(tracer: Any) -> Any | None:
    """What a tracer of JAX's partial evaluation stands for, or None if that is unknown."""
    return tracer.pval.get_known()


def stage_by_default(
    trace: Any, primitive: Primitive, tracers: Sequence[Any], params: dict[str, Any]
) -> list[Any]:
    """What partial evaluation does with a primitive that has no rule of its own."""
    return list(trace.default_process_primitive(primitive, tracers, params))


def saveable_by_policy(policy: Any, equation: Any) -> bool:
    """Whether a ``jax.checkpoint`` policy lets the results of an equation be saved."""
    avals = [variable.aval for variable in equation.invars]
    found = policy(equation.primitive, *avals, **equation.params)
    # A policy answers with a boolean, or with one of JAX's marks: recompute, save, offload.
    return found is True or (
        found is not False and not isinstance(found, partial_eval.RecomputeType)
    )


def is_variable(atom: Any) -> bool:
    """Whether an operand of an equation is a variable, not a literal."""
    return isinstance(atom, _core.Var)


def new_variable(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    """A variable for one more result of the equation ``like``."""
    avals = [variable.aval for variable in like.invars]
    return _core.Var(output_avals([(shape, dtype)], avals)[0])


def equation_with(
    equation: Any,
    primitive: Primitive,
    operands: Sequence[Any],
    results: Sequence[Any],
    params: dict[str, Any],
) -> Any:
    """An equation in the place of another."""
    return equation.replace(
        primitive=primitive, invars=list(operands), outvars=list(results), params=params
    )


# Since JAX 0.12 a linearization also returns structured residuals, of which there are none here.
_STRUCTURED = "structured_res" in _LinearizeTrace.process_primitive.__code__.co_varnames


def register_linearization(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """How ``jax.linearize`` and reverse mode take a primitive apart.

    Args:
        primitive: Of multiple results.
        rule: ``(is_vjp, nonzeros, *primals, **params)`` to (results, which of them move,
            residuals, ``linear(residuals, *tangents)``).
    """

    def adapted(*args: Any, **params: Any) -> Any:
        outputs, moves, residuals, linear = rule(*args, **params)
        if _STRUCTURED:
            return outputs, moves, residuals, None, lambda res, _, *tangents: linear(res, *tangents)
        return outputs, moves, residuals, linear

    _primitive_linearizations[primitive] = adapted


def register_dce_rule(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """What of an equation may be left out.

    Args:
        primitive: Whose equations.
        rule: ``(used results, equation)`` to (used operands, equation or None).
    """
    # JAX 0.12 puts the live operands in between.
    partial_eval.dce_rules[primitive] = lambda used, *rest: rule(used, rest[-1])
