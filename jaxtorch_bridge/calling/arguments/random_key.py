"""The random key of a call: what a caller passes as ``rng=``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ...errors import ArgumentError
from ...planner.array_signature import ArraySig
from ..like_function import described
from .sort_leaves import is_array

if TYPE_CHECKING:
    from ...planner.options import Options
    from ...spec.model import CallableSpec

KEYWORD = "rng"

# no: the keyword is the function's own, or the contract does not allow it. may: a key makes a
# call random. must: every call needs one.
KeyUse = Literal["no", "may", "must"]


def key_use(
    function: Callable[..., Any], spec: CallableSpec | None, options: Options, label: str
) -> KeyUse:
    """What ``rng=`` means in a call.

    Raises:
        ArgumentError: A key is declared, but the torch function has a parameter of that name.
    """
    declared = options.random or (spec.random if spec else None)
    parameters = _parameters(function)
    if declared == "key":
        if KEYWORD in parameters:
            raise ArgumentError(
                f"{label}: `random: key` takes the key of a call as `{KEYWORD}=`, but the torch "
                f"function has a parameter `{KEYWORD}` itself. Rename it, or wrap the function."
            )
        return "must"
    # Only a contract that says `random: none` forbids a key; the default alone does not.
    if options.random == "none" or (spec is not None and "random" in spec.model_fields_set):
        return "no"
    # A function that takes any keyword may have a meaning of its own for `rng`.
    takes_any = inspect.Parameter.VAR_KEYWORD in parameters.values()
    return "no" if takes_any or KEYWORD in parameters else "may"


def check_key(label: str, key: Any) -> None:
    """Object to what is no random key of one call.

    Raises:
        ArgumentError: Says what it is, and how keys are made.
    """
    expected = f"{label}, `{KEYWORD}`: expected one JAX key, such as jax.random.key(0); got "
    if not is_array(key):
        kind = type(key)
        hint = ""
        if isinstance(key, (torch.Tensor, torch.Generator)):
            hint = " The key must be JAX's: it is what makes two calls differ."
        raise ArgumentError(f"{expected}{kind.__module__}.{kind.__qualname__}.{hint}")
    shape = tuple(key.shape)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if shape:
            raise ArgumentError(f"{expected}keys of shape {list(shape)}. {_ONE_OF_MANY}")
        return
    if key.dtype != np.uint32:
        raise ArgumentError(f"{expected}{key.dtype}{list(shape)}.")
    if shape not in _RAW_SHAPES:
        # A batch of raw keys has their words along its last axis.
        many = f" {_ONE_OF_MANY}" if shape[-1:] in _RAW_SHAPES else ""
        raise ArgumentError(f"{expected}uint32{list(shape)}.{many}")


# Words of a threefry key, and of an rbg key.
_RAW_SHAPES = ((2,), (4,))
_ONE_OF_MANY = "Call under jax.vmap for a draw with each of them, or pick one."


def key_data(label: str, key: Any) -> Any:
    """The uint32 words of a key: an array, a tracer, or a shape where only that is known.

    Raises:
        ArgumentError: As `check_key`.
    """
    check_key(label, key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, key)
    return jax.random.key_data(key)


def key_sig(shape: tuple[int, ...]) -> ArraySig:
    """The words of a key as an operand."""
    return ArraySig(KEYWORD, shape, "uint32", "uint32", differentiable=False)


def missing_key(label: str) -> ArgumentError:
    """What to raise where a call needs a key and has none."""
    return ArgumentError(
        f"{label}: expected a random key, since the function is declared with `random: key`; got "
        f"none. Pass {KEYWORD}=jax.random.key(0), and another key in every call that is to draw "
        "other numbers."
    )


def key_for_tensors(label: str) -> ArgumentError:
    """What to raise where a call on torch tensors has a key."""
    return ArgumentError(
        f"{label}: expected `{KEYWORD}` in calls on JAX arrays only; got it with torch tensors, "
        "for which the torch function runs as it is. Leave it out there, and use torch.manual_seed."
    )


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The kinds of a function's parameters by name; empty for builtins, which have no such name."""
    try:
        signature = inspect.signature(described(function))
    except (TypeError, ValueError):
        return {}
    return {name: parameter.kind for name, parameter in signature.parameters.items()}
