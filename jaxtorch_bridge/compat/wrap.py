"""``torch2jax`` and its relatives, with the parameters and defaults of ``wrap-torch2jax`` 0.9.0."""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..calling.like_function import take_names
from ..errors import ArgumentError
from ..planner.declared_outputs import Declared
from ..planner.options import Options
from ..torchside.closure.function_identity import name_of
from .example_arguments import read_examples, shapes_of
from .nondiff import read_nondiff
from .output_shapes import read_output_shapes
from .wrapped_function import Torch2Jax

Lock = bool | AbstractContextManager[Any]

# For `lock=True`: one for all functions of the process. Reentrant: a torch function may call
# another one's JAX form.
_PROCESS_LOCK = threading.RLock()


def torch2jax(
    torch_fn: Callable[..., Any],
    *example_args: Any,
    example_kw: Any | None = None,
    depth: int = 2,
    nondiff_argnums: int | list[int] | tuple[int, ...] | None = None,
    nondiff_mask: Any | None = None,
    output_shapes: Any | None = None,
    out_specs: Any | None = None,
    use_zeros: bool = True,
    use_torch_vjp: bool = True,
    vmap_method: Any = "sequential",
    lock: Lock = False,
) -> Torch2Jax:
    """A JAX function that runs a torch function, for arguments like the examples.

    Args:
        torch_fn: The torch function; its arguments and results are pytrees of tensors.
        *example_args: Like the arguments to come: pytrees of tensors, arrays or
            ``ShapeDtypeStruct``. Calls must have their structure; other shapes are planned anew.
            Where an example is a tensor, torch gets its dtype back if JAX holds the narrower kind
            (``int64`` as ``int32``).
        example_kw: Likewise, the keyword arguments as a dict.
        depth: The highest order of derivative that a caller may take; 0: none.
        nondiff_argnums: Numbers of positional arguments without a derivative.
        nondiff_mask: For each array whether it has none.
        output_shapes: What comes back for the examples' shapes: a pytree of ``torch.Size``,
            ``ShapeDtypeStruct``, arrays or tensors. Results come in its structure, and anything
            else that torch returns is an error.
        out_specs: Partition specs of the results where arguments are sharded along explicit mesh
            axes: torch is then called once for each shard.
        use_zeros: Without effect: the gradient of an argument without a derivative is zero.
        use_torch_vjp: Whether ``torch.func.vjp`` and captured graphs may be used; otherwise
            ``torch.autograd.grad`` alone.
        vmap_method: As in `jax_callable`; ``torch_vmap`` is one batched call.
        lock: Held by all that torch runs for this function. True: one lock for the process.

    Returns:
        The JAX function. Given torch tensors alone it is ``torch_fn`` itself. If it writes to its
        arguments, it gets copies of them, and a warning says so once.

    Raises:
        ArgumentError: A parameter or an example is not valid.
        DtypeError: An example has a dtype that JAX does not have.

    Source:
        Interface of ``wrap-torch2jax`` 0.9.0; ``docs/migrating.md`` has the differences.
    """
    label = _label_of(torch_fn)
    examples = read_examples(label, example_args, _keywords(label, example_kw))
    outputs = None
    if output_shapes is not None:
        outputs = read_output_shapes(label, output_shapes, examples)
    # Nothing where no example is a tensor: torch then sees what JAX holds.
    declared = Declared(
        torch_dtypes=examples.torch_dtypes if any(examples.torch_dtypes) else (),
        depth=_depth(label, depth),
        autograd_only=not use_torch_vjp,
        lock=_lock(label, lock),
        told_of_copies=set(),
    )
    options = Options(vmap_method=vmap_method, declared=declared)
    options.refuse_invalid()
    nondiff = read_nondiff(examples, nondiff_argnums, nondiff_mask)
    return Torch2Jax(torch_fn, examples, outputs, options, nondiff, out_specs)


def torch2jax_without_vjp(
    fn: Callable[..., Any],
    *example_args: Any,
    example_kw: Any | None = None,
    output_shapes: Any | None = None,
    out_specs: Any | None = None,
    vmap_method: Any = "sequential",
    lock: Lock = False,
    output_sharding_spec: Any | None = None,
) -> Torch2Jax:
    """`torch2jax` without derivatives.

    Args:
        fn: The torch function.
        *example_args: As for `torch2jax`, as are the others.
        example_kw: As there.
        output_shapes: As there.
        out_specs: As there.
        vmap_method: As there.
        lock: As there.
        output_sharding_spec: The old name of ``out_specs``.

    Raises:
        ArgumentError: As `torch2jax`, or both names are used.
    """
    if output_sharding_spec is not None:
        warnings.warn(
            "output_sharding_spec is the old name of out_specs", DeprecationWarning, stacklevel=2
        )
        if out_specs is not None:
            raise ArgumentError(
                f"{_label_of(fn)}: expected out_specs or its old name output_sharding_spec; got "
                "both. Keep out_specs."
            )
        out_specs = output_sharding_spec
    return torch2jax(
        fn,
        *example_args,
        example_kw=example_kw,
        depth=0,
        output_shapes=output_shapes,
        out_specs=out_specs,
        vmap_method=vmap_method,
        lock=lock,
    )


def torch2jax_with_vjp(
    torch_fn: Callable[..., Any], *example_args: Any, depth: int = 2, **options: Any
) -> Torch2Jax:
    """`torch2jax`, by its old name."""
    warnings.warn(
        "torch2jax_with_vjp is the old name of torch2jax", DeprecationWarning, stacklevel=2
    )
    return torch2jax(torch_fn, *example_args, depth=depth, **options)


def torch2jax_auto(
    torch_fn: Callable[..., Any], output_shapes: Any | None = None, **options: Any
) -> Callable[..., Any]:
    """`torch2jax` with the arguments of the first call as examples.

    Args:
        torch_fn: The torch function.
        output_shapes: As for `torch2jax`.
        **options: Keywords of `torch2jax`.

    Raises:
        ArgumentError: At the first call, as `torch2jax`; at later ones if their arguments have
            another structure than the first one's.
    """
    made: list[Torch2Jax] = []
    making = threading.Lock()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if made:
            return made[0](*args, **kwargs)
        with making:
            # Once more, under the lock: first calls on two threads are to share one function's
            # plans.
            if not made:
                if kwargs:
                    options.setdefault("example_kw", shapes_of(kwargs))
                # Only shapes: what is made lives on, and would hold the first call's arrays, or
                # tracers.
                first = torch2jax(
                    torch_fn, *shapes_of(args), output_shapes=output_shapes, **options
                )
                made.append(first)
        return made[0](*args, **kwargs)

    take_names(wrapped, torch_fn)
    return wrapped


def torch2jax_flat(
    fn: Callable[..., Any],
    output_shapes: Any | None = None,
    vmap_method: Any = "sequential",
    lock: Lock = False,
) -> Torch2Jax:
    """A JAX function of positional arrays, with the outputs declared and without derivatives.

    Args:
        fn: The torch function, from tensors to one tensor or several.
        output_shapes: Required: a list or tuple of anything with ``shape`` and ``dtype``. It holds
            for arguments of any shapes.
        vmap_method: As for `torch2jax`.
        lock: As for `torch2jax`.

    Raises:
        ArgumentError: ``output_shapes`` is missing or not valid.
    """
    label = _label_of(fn)
    if output_shapes is None:
        raise ArgumentError(f"{label}: expected output_shapes; got none. torch2jax finds them out.")
    outputs = read_output_shapes(label, output_shapes, None)
    declared = Declared(depth=0, lock=_lock(label, lock), told_of_copies=set())
    options = Options(vmap_method=vmap_method, declared=declared)
    options.refuse_invalid()
    return Torch2Jax(fn, None, outputs, options)


def _label_of(function: Callable[..., Any]) -> str:
    if not callable(function):
        raise ArgumentError(f"torch2jax: expected a torch function; got {function!r:.60}.")
    return name_of(function)


def _keywords(label: str, example_kw: Any | None) -> dict[str, Any]:
    if example_kw is None:
        return {}
    if not isinstance(example_kw, dict) or not all(isinstance(name, str) for name in example_kw):
        raise ArgumentError(
            f"{label}, example_kw: expected a dict of keyword arguments; got {example_kw!r:.60}."
        )
    return dict(example_kw)


def _depth(label: str, depth: int) -> int:
    try:
        if isinstance(depth, bool):
            raise TypeError
        return max(operator.index(depth), 0)
    except TypeError:
        raise ArgumentError(f"{label}: expected depth as an integer; got {depth!r}.") from None


def _lock(label: str, lock: Lock) -> AbstractContextManager[Any] | None:
    if isinstance(lock, bool):
        return _PROCESS_LOCK if lock else None
    if not isinstance(lock, AbstractContextManager):
        raise ArgumentError(
            f"{label}: expected lock as True, False or a lock such as threading.Lock(); got "
            f"{lock!r:.60}."
        )
    return lock
