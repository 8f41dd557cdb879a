"""What a plan is made from: written into exported programs, and read where they are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import torch

from ..._compat.jax.symbolic_shapes import constraints_of, shapes_of_texts
from ...dtypes import DTYPES
from ...planner.array_signature import ArraySig
from ...planner.plan import CallPlan
from ...planner.plan_facts import facts_of
from ...torchside.handler.torch_context import TorchContext
from ...torchside.modules.module_call import Mode
from ..arguments.sort_leaves import Leaves
from ..pytrees.trees import Structure, leaf_count
from .not_data import NotDataError, RecipeError
from .structures import read_structure, structure_data
from .values import read_value, value_data

# Raised where an older version of the library could not read what is written, or would misread it.
_VERSION = 1
# A call with a thousand arrays has a tenth of it.
MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True, eq=False)
class Recipe:
    """One way of calling a function.

    Attributes:
        structure: How the leaves make up ``(args, kwargs)``.
        flat: The leaves: static values, and `jax.ShapeDtypeStruct` for arrays.
        key: The words of the random key as `jax.ShapeDtypeStruct`; None: it has none.
        mode: In which way a module of `from_module` is called; None for any other function.
        context: Torch's settings to plan under.
        x64: Whether JAX held 64-bit dtypes.
        facts: What decided the plan, to be compared.
    """

    structure: Structure
    flat: tuple[Any, ...]
    key: Any
    mode: Mode | None
    context: TorchContext
    x64: bool
    facts: Mapping[str, str]


def recipe_text(
    leaves: Leaves, context: TorchContext, x64: bool, plan: CallPlan, mode: Mode | None
) -> str:
    """The recipe as a program holds it, or why there is none.

    Args:
        leaves: Structure and static values of the call.
        context: Torch's settings of the caller.
        x64: Whether JAX holds 64-bit dtypes.
        plan: What was decided.
        mode: See `Recipe`.
    """
    try:
        text = _text(_data(leaves, context, x64, plan, mode))
        if len(text) <= MOST_CHARACTERS:
            return text
        reason = f"its description has more than {MOST_CHARACTERS} characters"
    except (NotDataError, RecursionError, ValueError) as error:
        reason = str(error)
    return _text({"version": _VERSION, "none": reason})


def _text(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def _data(
    leaves: Leaves, context: TorchContext, x64: bool, plan: CallPlan, mode: Mode | None
) -> dict[str, Any]:
    arrays = iter(plan.inputs)
    here = set(leaves.positions)
    flat = [
        {"array": _array_data(next(arrays))} if index in here else {"static": value_data(value)}
        for index, value in enumerate(leaves.template)
    ]
    shapes = [sig.shape for sig in plan.inputs]
    return {
        "version": _VERSION,
        "structure": structure_data(leaves.structure),
        "leaves": flat,
        "constraints": constraints_of(shapes),
        "key": None if plan.random_key is None else list(plan.random_key.shape),
        "mode": None
        if mode is None
        else [mode.train, mode.changed, mode.returns_buffers, mode.keyed],
        "torch": {
            "grad": context.grad,
            "autocast": [[device, value_data(dtype)] for device, dtype in context.autocast],
            "default_dtype": value_data(context.default_dtype),
            "default_device": context.default_device,
        },
        "x64": x64,
        "facts": facts_of(plan),
    }


def _array_data(sig: ArraySig) -> list[Any]:
    # Sizes that are not known are texts, such as `2*b`.
    return [sig.dtype, [size if isinstance(size, int) else str(size) for size in sig.shape]]


def read_recipe(text: str) -> Recipe:
    """The recipe that a program holds.

    Raises:
        RecipeError: It holds none, or one that cannot be followed here.
    """
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(f"it has {len(text)} characters")
    try:
        data = json.loads(text)
        if type(data) is not dict:
            raise RecipeError("expected an object of JSON")
        if data.get("version") != _VERSION:
            raise RecipeError(
                f"it is of version {str(data.get('version'))[:20]}, and this library reads version "
                f"{_VERSION}"
            )
        if "none" in data:
            raise RecipeError(f"it says that there is none: {str(data['none'])[:500]}")
        return _recipe(data)
    except RecipeError:
        raise
    # Whatever a stranger may have written: JSON that is none, other types, nesting without end.
    except Exception as error:
        words = f"{type(error).__name__}: {str(error)[:200]}"
        raise RecipeError(f"it is not written as this library does ({words})") from error


def _recipe(data: dict[str, Any]) -> Recipe:
    structure = read_structure(data["structure"])
    arrays = [leaf["array"] for leaf in data["leaves"] if "array" in leaf]
    structs = iter(_arrays(arrays, data["constraints"]))
    flat = tuple(
        next(structs) if "array" in leaf else read_value(leaf["static"]) for leaf in data["leaves"]
    )
    if leaf_count(structure) != len(flat):
        raise RecipeError(f"its structure has {leaf_count(structure)} leaves, and not {len(flat)}")
    key = None if data["key"] is None else _array("uint32", tuple(map(_size, data["key"])))
    return Recipe(
        *(structure, flat, key, _mode(data["mode"]), _context(data["torch"])),
        *(_flag(data["x64"]), _facts(data["facts"])),
    )


def _arrays(data: list[Any], constraints: list[str]) -> list[Any]:
    symbolic = [shape for _, shape in data if any(type(size) is str for size in shape)]
    # All at once: equal names are the same size.
    texts = [
        ", ".join(size if type(size) is str else str(_size(size)) for size in shape)
        for shape in symbolic
    ]
    shapes = iter(shapes_of_texts(texts, constraints) if texts else ())
    return [
        _array(dtype, next(shapes) if shape in symbolic else tuple(map(_size, shape)))
        for dtype, shape in data
    ]


def _array(dtype: Any, shape: tuple[Any, ...]) -> Any:
    if dtype not in DTYPES:
        raise RecipeError(f"there are no arrays of `{str(dtype)[:40]}`")
    return jax.ShapeDtypeStruct(shape, dtype)


def _size(size: Any) -> int:
    if type(size) is not int or not 0 <= size < 2**63:
        raise RecipeError(f"`{str(size)[:40]}` is no size")
    return size


def _flag(flag: Any) -> bool:
    if type(flag) is not bool:
        raise RecipeError("expected true or false")
    return flag


def _mode(data: Any) -> Mode | None:
    if data is None:
        return None
    train, changed, returns_buffers, keyed = data
    return Mode(
        None if train is None else _flag(train),
        tuple(map(str, changed)),
        _flag(returns_buffers),
        _flag(keyed),
    )


def _facts(data: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in data.items()}


def _context(data: dict[str, Any]) -> TorchContext:
    # Each is a value first: what is no device or no dtype is refused.
    device = str(torch.device(str(data["default_device"])))
    return TorchContext(
        _flag(data["grad"]),
        tuple((_autocast_device(name), _dtype(dtype)) for name, dtype in data["autocast"]),
        _dtype(data["default_dtype"]),
        device,
    )


def _autocast_device(name: Any) -> str:
    if name not in ("cpu", "cuda"):
        raise RecipeError(f"there is no autocast on `{str(name)[:40]}`")
    return str(name)


def _dtype(data: Any) -> torch.dtype:
    found = read_value(data)
    if not isinstance(found, torch.dtype):
        raise RecipeError("expected a dtype of torch")
    return found
