"""`jax_callable`: the decorator that makes a JAX function of a torch function."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

from .calling.jax_callable import JaxCallable
from .calling.like_function import described
from .choices import Backend, ConcurrencyMode, RandomMode, VmapMethod
from .errors import ArgumentError
from .planner.annotated_contract import (
    annotated_contract,
    contract_of_outputs,
    refuse_other_annotations,
)
from .planner.options import Options
from .planner.unenforced import refuse_other_defaults
from .torchside.closure.function_identity import name_of

if TYPE_CHECKING:
    from .spec.model import CallableSpec

P = ParamSpec("P")
R = TypeVar("R")

SpecLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | CallableSpec"


@overload
def jax_callable(
    function: Callable[P, R],
    /,
    *,
    spec: SpecLike | None = None,
    outputs: Mapping[str, Any] | str | None = None,
    example: Sequence[Any] | None = None,
    name: str | None = None,
    nondiff: Sequence[str] = (),
    vmap_method: VmapMethod | None = None,
    verify: bool | None = None,
    concurrency: ConcurrencyMode | None = None,
    random: RandomMode | None = None,
    mutates: Sequence[str] | None = None,
    copies: Sequence[str] | None = None,
    backend: Backend | None = None,
    islands: bool | None = None,
    cuda_graph: bool | None = None,
) -> JaxCallable[P, R]: ...
@overload
def jax_callable(
    function: None = None,
    /,
    *,
    spec: SpecLike | None = None,
    outputs: Mapping[str, Any] | str | None = None,
    example: Sequence[Any] | None = None,
    name: str | None = None,
    nondiff: Sequence[str] = (),
    vmap_method: VmapMethod | None = None,
    verify: bool | None = None,
    concurrency: ConcurrencyMode | None = None,
    random: RandomMode | None = None,
    mutates: Sequence[str] | None = None,
    copies: Sequence[str] | None = None,
    backend: Backend | None = None,
    islands: bool | None = None,
    cuda_graph: bool | None = None,
) -> Callable[[Callable[P, R]], JaxCallable[P, R]]: ...
def jax_callable(
    function: Callable[..., Any] | None = None,
    /,
    *,
    spec: SpecLike | None = None,
    outputs: Mapping[str, Any] | str | None = None,
    example: Sequence[Any] | None = None,
    name: str | None = None,
    nondiff: Sequence[str] = (),
    vmap_method: VmapMethod | None = None,
    verify: bool | None = None,
    concurrency: ConcurrencyMode | None = None,
    random: RandomMode | None = None,
    mutates: Sequence[str] | None = None,
    copies: Sequence[str] | None = None,
    backend: Backend | None = None,
    islands: bool | None = None,
    cuda_graph: bool | None = None,
) -> Any:
    """A JAX function that runs a torch function on XLA's own buffers.

    Use it as a decorator, with or without arguments, or as a plain call on a function, a
    lambda, a ``functools.partial``, a bound method or a ``torch.nn.Module``.

    Called with JAX (or numpy) arrays or tracers, the result is a JAX function: eager, under
    ``jit``, ``grad`` and the rest. Called with torch tensors it is the torch function itself,
    untouched. Arguments and results may be any pytrees; leaves that are no arrays are static.

    Args:
        function: The torch function.
        spec: Its contract: a path to YAML, a name and version of the registry (``attention@2``:
            the newest 2.x), a mapping, or a `CallableSpec`. Enforced at trace time and when
            running. Default: what jaxtyping's annotations of the function say, if it has any.
        outputs: What comes back, as a contract's ``outputs`` say it, for functions without one:
            a mapping by name, in the order of the results, or one array as text. With
            ``float32[kept<=100, 4]`` a result whose size follows from values is padded to a bound,
            as ``jax.numpy.nonzero(size=100)`` does.
        example: Concrete positional arguments to run on once, where the outputs depend on
            values and abstract evaluation fails.
        name: Name for messages and op keys; default: the contract's, or the function's own.
        nondiff: Paths of array leaves that get no derivative, as ``jax.lax.stop_gradient`` would
            do: ``("mask", "params['frozen']")``.
        vmap_method: What ``jax.vmap`` does: ``torch_vmap`` (the default: one call of
            ``torch.vmap``, one by one where it cannot), ``sequential``, ``sequential_unrolled``,
            ``expand_dims`` or ``broadcast_all``, with the meaning that `jax.pure_callback` gives
            to them. The last two are claims that the function works along leading axes.
        verify: Compare the first batched run of a plan with single calls; with the backend ``xla``,
            every first run with torch.
        concurrency: How calls on several devices share the modules that the function closes over:
            ``parallel`` (at the same time) or ``locked`` (one at a time). Default: the
            contract's, or the best that is safe.
        random: ``key``: every call takes a JAX random key as ``rng=``, from which torch's
            generators are seeded for the call. Default: the contract's; without a contract a
            call may take one.
        mutates: Arguments that the function writes to (``("x",)``, or ``("state.mean",)`` for a
            part of one). Their new values come behind the function's result, or alone if it
            returns nothing or only them. Under ``jit`` with ``donate_argnums`` the new value is
            the same memory; otherwise the caller's array is left as it is. Default: the
            contract's.
        backend: What runs the function: ``eager`` its own code (the default), ``graph`` a graph
            captured by planning, ``compile`` that graph by ``torch.compile``, ``xla`` JAX
            operations made of it.
        islands: Whether torch may run what JAX has no operation for, with ``xla``; False makes an
            error of it. Default: the contract's, or True.
        cuda_graph: Whether XLA may record calls on a GPU into its command buffers, with ``graph``,
            and run what they launched in their place. Default: the contract's, or False.
        copies: Arguments of which the function gets a copy of its own, since its code writes to
            them and cannot be changed; named as in ``mutates``, also whole containers. The
            caller's array keeps its value, and what is written is lost. Default: the contract's.

    Returns:
        The JAX function. ``.torch`` is the original, ``.spec`` the contract, ``.plan(*args)``
        the frozen plan, ``.explain(*args)`` the plan as text.

    Raises:
        SpecError: The contract or ``outputs`` are not valid, or the function's annotations
            contradict them.
        ArgumentError: A keyword is not valid, or contradicts the contract.
        TypeError: ``function`` cannot be called.
    """
    if function is None:
        return functools.partial(
            jax_callable,
            spec=spec,
            outputs=outputs,
            example=example,
            name=name,
            nondiff=nondiff,
            vmap_method=vmap_method,
            verify=verify,
            concurrency=concurrency,
            random=random,
            mutates=mutates,
            copies=copies,
            backend=backend,
            islands=islands,
            cuda_graph=cuda_graph,
        )
    if not callable(function):
        raise TypeError(f"jax_callable: expected a callable, got {type(function).__name__}")
    if isinstance(nondiff, str):
        raise TypeError(
            f"jax_callable: expected nondiff as a sequence of paths, got {nondiff!r}; write "
            f"nondiff=({nondiff!r},)."
        )
    for keyword, names in (("mutates", mutates), ("copies", copies)):
        if isinstance(names, str):
            raise TypeError(
                f"jax_callable: expected {keyword} as a sequence of names, got {names!r}; write "
                f"{keyword}=({names!r},)."
            )
    options = Options(
        tuple(nondiff),
        vmap_method,
        verify,
        concurrency,
        random=random,
        mutates=None if mutates is None else tuple(mutates),
        copies=None if copies is None else tuple(copies),
        backend=backend,
        islands=islands,
        cuda_graph=cuda_graph,
    )
    options.refuse_invalid()
    contract: CallableSpec | None
    if outputs is not None:
        if spec is not None:
            raise ArgumentError(
                "jax_callable: expected outputs from `spec` or from `outputs`; got both. Write "
                "those of `outputs` into the contract."
            )
        contract = contract_of_outputs(described(function), name or name_of(function), outputs)
        refuse_other_annotations(contract, described(function))
    elif spec is not None:
        # Here: a program without contracts starts without pydantic.
        from .spec.files.load import load_spec

        contract = load_spec(spec, near=_folder_of(function))
        refuse_other_defaults(contract, function)
        refuse_other_annotations(contract, described(function))
        options.refuse_contradiction(contract)
    else:
        contract = annotated_contract(described(function), name or name_of(function))
    return JaxCallable(function, contract, example, name, options)


def _folder_of(function: Callable[..., Any]) -> str | None:
    """The folder of the file that defines ``function``, where its project is looked for."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else os.path.dirname(os.path.abspath(code.co_filename))
