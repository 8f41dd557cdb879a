"""The calls of exported programs: planned from what the program says when it is first compiled.

Called by the native handler, on a thread of XLA's. What a program says is data that a stranger may
have written: it chooses among the callables of this process, their arguments' shapes and plain
static values, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import torch

from .._compat.jax.compiling import compilation_of
from ..errors import BridgeError
from ..planner.op_keys import exported_key, label_of_key
from ..planner.op_steps import Steps, read_steps
from ..planner.plan_facts import difference, facts_of
from ..torchside.closure.locks import holders_before
from ..torchside.replay_steps import StepError, replay
from .call_planner import Planned
from .outputs.find_outputs import ConcreteRunNeeded
from .planning_lock import holder_before
from .recipe.not_data import RecipeError
from .recipe.recipe import Recipe, read_recipe

# A thread that planning waits for may have XLA compile what has nothing to do with it. If it is the
# same twice, that long apart, it is taken to be the program that is loaded.
_STANDSTILL_SECONDS = 10.0


class Plannable(Protocol):
    """A callable that can be planned without a call; see `jax_callable.JaxCallable`."""

    def planned_from(self, recipe: Recipe) -> Planned:
        """The plan of the call that a recipe describes."""


class _NotThisError(Exception):
    """A callable has not the op that a program calls; the text says why."""


def find_op(functions: Sequence[Plannable], key: str, recipe: str, steps: str) -> Any:
    """The op that a program calls.

    Args:
        functions: Those of this process with the name and version that the program says.
        key: Of the op, as exported.
        recipe: What the function's own op is planned from.
        steps: How the op derives from that.

    Returns:
        The handle that owns it; or a text, why there is none.
    """
    found = _on_its_own_thread(lambda: _find(functions, key, recipe, steps))
    if found is not None:
        return found
    return (
        f"{_called(key)}. A torch function that has the program compiled, within its own call or "
        "planning, holds what planning this needs: it is the same function, or shares a module "
        "with it. Call the program, or the function with arguments of these shapes, once before "
        "that."
    )


def _find(functions: Sequence[Plannable], key: str, recipe: str, steps: str) -> Any:
    try:
        read, wanted = read_recipe(recipe), _read_steps(steps)
    except RecipeError as error:
        return (
            f"{_called(key)}. What the program says of the call cannot be used: {error}. Plan the "
            "call here before the program runs: call the function once with arguments of these "
            "shapes (for a gradient or a batch: take that once)."
        )
    found, reasons = [], []
    # All of them: where several have the op, the native table tells whether either will do.
    for function in functions:
        try:
            found.append(_op_of(function, key, read, wanted).handle)
        except _NotThisError as error:
            reasons.append(str(error))
    return found[0] if found else f"{_called(key)}. {' '.join(dict.fromkeys(reasons))}"


def _called(key: str) -> str:
    return (
        "ExportError: this program was exported and calls the torch function "
        f"`{label_of_key(key)}` (op key {key})"
    )


def _read_steps(text: str) -> Steps:
    try:
        return read_steps(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(str(error)[:200]) from error


def _op_of(function: Plannable, key: str, recipe: Recipe, steps: Steps) -> Any:
    if recipe.context.default_dtype is not torch.get_default_dtype():
        raise _NotThisError(
            f"It was exported with torch's default dtype {recipe.context.default_dtype}; here it "
            f"is {torch.get_default_dtype()}. Call torch.set_default_dtype first."
        )
    try:
        # Of this thread alone: the process may hold other dtypes than the program.
        with jax.enable_x64(recipe.x64), recipe.context.scope():
            planned = function.planned_from(recipe)
            if not exported_key(key).startswith(exported_key(planned.op.key)):
                raise _NotThisError(_what_differs(recipe, planned))
            op = replay(planned.op, steps)
    except _NotThisError:
        raise
    except ConcreteRunNeeded:
        raise _NotThisError(
            "Its outputs cannot be found without running it, which a program may not ask for. "
            f"Before the program runs, call it once with {_arguments(recipe)}, or plan it with "
            ".plan(...); or give it a contract with outputs, or example=(...)."
        ) from None
    except StepError as error:
        raise _NotThisError(
            f"What it asks for cannot be derived from the function: {error}. Export the program "
            "again."
        ) from error
    except BridgeError as error:
        raise _NotThisError(
            f"Planning it for {_arguments(recipe)} fails: {type(error).__name__}: {error}"
        ) from error
    # The function's own code, which planning runs, and what a stranger's program may lead it to.
    except Exception as error:
        raise _NotThisError(
            f"Planning it for {_arguments(recipe)} fails: {type(error).__name__}: "
            f"{str(error)[:500]}. Export the program again."
        ) from error
    if exported_key(op.key) != key:
        raise _NotThisError(
            f"The function is the same, but here its derivative or batch is found in another way "
            f"(op key {op.key}). Use the same settings and versions, or export the program again."
        )
    return op


def _what_differs(recipe: Recipe, planned: Planned) -> str:
    words = difference(recipe.facts, facts_of(planned.plan))
    return (
        f"The function of that name differs here: {words or 'its key is another one'}. Import the "
        "version of its module that the program was made with, or export the program again."
    )


def _arguments(recipe: Recipe) -> str:
    shapes = [
        f"{leaf.dtype}[{', '.join(map(str, leaf.shape))}]"
        for leaf in recipe.flat
        if isinstance(leaf, jax.ShapeDtypeStruct)
    ]
    return f"arguments {', '.join(shapes[:20])}" if shapes else "no arrays"


def _on_its_own_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` gives; None if it waits for the thread that waits for this one.

    XLA's threads have a quarter of the stack that torch's tracers are used to, and what planning
    sets for a thread must not stay there.
    """
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(f"ExportError: planning failed with {type(error).__name__}: {error}")
        finally:
            done.set()

    # Not by `join`, and not a daemon by default: both would make a thread of Python's of XLA's one.
    done = threading.Event()
    thread = threading.Thread(target=run, name="jaxtorch_bridge-export", daemon=False)
    thread.start()
    before: set[tuple[int, int]] = set()
    while not done.wait(_STANDSTILL_SECONDS):
        now = _compilations_before(thread.ident)
        if before & now:
            # It goes on when the compilation has failed for this, and is then of no use.
            return None
        before = now
    # XLA takes no text with half a character, which a stranger's JSON may hold.
    made = found[0]
    return made.encode("utf-8", "backslashreplace").decode() if isinstance(made, str) else made


def _compilations_before(thread: int | None) -> set[tuple[int, int]]:
    """The threads that one waits for that wait for XLA to compile, each with what that is."""
    waiting, seen = [thread], set[int]()
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.add(one)
            waiting += holder_before(one) | holders_before(one)
    found = {(one, compilation_of(one)) for one in seen if one != thread}
    return {(one, number) for one, number in found if number is not None}
