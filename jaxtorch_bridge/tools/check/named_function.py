"""The torch function that a contract names, imported; nothing else is."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...calling.jax_callable import JaxCallable
from ...decorator import jax_callable
from ...errors import BridgeError, SpecError, SpecProblem
from ...spec.language.wording import did_you_mean, listed
from ...spec.model import CallableSpec
from . import problems


@dataclass(frozen=True)
class Subject:
    """A contract with its function.

    Attributes:
        spec: The contract.
        function: The torch function.
        callable: It as a JAX function under this contract.
    """

    spec: CallableSpec
    function: Callable[..., Any]
    callable: JaxCallable[..., Any]


class NoSubject(Exception):
    """There is no function to compare the contract with.

    Attributes:
        problems: Why.
    """

    def __init__(self, *found: SpecProblem) -> None:
        super().__init__(*found)
        self.problems = found


def subject_of(spec: CallableSpec) -> Subject:
    """Import the contract's ``function`` and wrap it.

    Imports the module that it names, and whatever that imports.

    Raises:
        NoSubject: It cannot be imported, is no function, or does not accept the contract.
    """
    found = imported(spec)
    try:
        if isinstance(found, JaxCallable):
            function = found.torch
            _refuse_other_content(spec, found)
            # Wrapped anew under this contract, with all else as the module has it.
            wrapped = jax_callable(function, spec=spec, **_keywords_of(found))
        else:
            function = found
            wrapped = jax_callable(function, spec=spec)
    except SpecError as error:
        raise NoSubject(*problems.of_contract(spec, error)) from None
    except (BridgeError, TypeError) as error:
        expected = "a function that can be wrapped with this contract"
        raise _no_subject(spec, expected, problems.first_line(error)) from None
    odd = tuple(_odd_parameters(spec, function))
    if odd:
        raise NoSubject(*odd)
    return Subject(spec, function, wrapped)


def imported(spec: CallableSpec) -> Any:
    """What stands where the contract's ``function`` leads.

    Raises:
        NoSubject: It cannot be imported, or is no function.
    """
    assert spec.function is not None
    name, _, qualname = spec.function.partition(":")
    if name.partition(".")[0] in sys.stdlib_module_names:
        # A contract may come from anybody, and a proof calls what it names.
        raise _no_subject(spec, "a torch function", f"`{name}` of Python's own library")
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        expected = f"a module `{name}` that can be imported"
        raise _no_subject(spec, expected, _import_words(name, error)) from None
    found: Any = module
    for part in qualname.split("."):
        holder, found = found, getattr(found, part, None)
        if found is None:
            hint = did_you_mean(part, [one for one in dir(holder) if not one.startswith("__")])
            where = f"`{name}`" if holder is module else f"`{type(holder).__name__}`"
            raise _no_subject(spec, f"a function of {where}{hint}", f"no `{part}` there")
    _refuse_what_is_no_function(spec, found, holder)
    return found


def _import_words(name: str, error: BaseException) -> str:
    missing = getattr(error, "name", None)
    if isinstance(error, ModuleNotFoundError) and missing and f"{name}.".startswith(f"{missing}."):
        return f"no module `{missing}`; is its folder the current one, or is it installed?"
    return problems.first_line(error)


def _refuse_what_is_no_function(spec: CallableSpec, found: Any, holder: Any) -> None:
    if inspect.isclass(found) or not callable(found):
        kind = f"the class `{found.__name__}`" if inspect.isclass(found) else type(found).__name__
        raise _no_subject(spec, "a function, or an instance of a module", kind)
    if inspect.isclass(holder) and "self" in _parameters(found) and "self" not in spec.inputs:
        expected = "a function that can be called as it stands"
        remedy = "a method, whose instance no contract can name; name a function that calls it"
        raise _no_subject(spec, expected, remedy)


def _refuse_other_content(spec: CallableSpec, found: JaxCallable[..., Any]) -> None:
    if found.spec is None or found.spec.label != spec.label:
        return
    if _said_of_calls(found.spec) != _said_of_calls(spec):
        expected = f"what the function itself is decorated with, {found.spec.where('')}"
        raise _no_subject(spec, expected, f"another content of {spec.label}", "version")


def _keywords_of(found: JaxCallable[..., Any]) -> dict[str, Any]:
    """What the function was wrapped with, besides its contract."""
    known = inspect.signature(jax_callable).parameters
    planner = found._planner
    # `declared` is none of jax_callable's keywords.
    options = {name: value for name, value in vars(planner.options).items() if name in known}
    return {"example": planner.example, **options}


def _said_of_calls(spec: CallableSpec) -> str:
    """A digest without remarks and where the function stands."""
    return spec.model_copy(update={"function": None}).digest()


def _odd_parameters(spec: CallableSpec, function: Callable[..., Any]) -> Any:
    """Inputs and static arguments that are no parameters, and parameters that are neither."""
    parameters = _parameters(function)
    kinds = {one.kind for one in parameters.values()}
    named = [
        name
        for name, one in parameters.items()
        if one.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    if not parameters or inspect.Parameter.VAR_POSITIONAL in kinds:
        return  # no signature to compare with
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for field, names in (("inputs", spec.inputs), ("static", spec.static)):
            for name in names:
                if name not in named:
                    expected = f"one of the function's parameters {listed(named)}"
                    hint = did_you_mean(name, named)
                    path = f"{field}.{name}"
                    yield problems.problem_at(spec, path, expected + hint, f"`{name}`")
    for name in named:
        known = name in spec.inputs or name in spec.static
        if not known and parameters[name].default is inspect.Parameter.empty:
            expected = f"the function's parameter `{name}`, which has no default"
            yield problems.problem_at(spec, "inputs", expected, "no input of that name")
    order = [name for name in named if name in spec.inputs]
    mine = [name for name in spec.inputs if name in order and not _may_be_left_out(spec, name)]
    theirs = [name for name in order if name in mine]
    if mine != theirs:
        # Callers pass arrays by position, as the stubs say.
        expected = f"inputs in the order of the function's parameters, {listed(theirs)}"
        yield problems.problem_at(spec, "inputs", expected, listed(mine))


def _may_be_left_out(spec: CallableSpec, name: str) -> bool:
    leaves = [leaf for path, leaf in spec.input_leaves() if path[0] == name]
    return all(leaf.optional for leaf in leaves)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    described = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        return dict(inspect.signature(described).parameters)
    except (TypeError, ValueError):  # builtins have none
        return {}


def _no_subject(spec: CallableSpec, expected: str, found: str, path: str = "function") -> NoSubject:
    return NoSubject(problems.problem_at(spec, path, expected, found))
