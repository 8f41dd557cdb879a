"""A first contract, and what is known of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...calling.jax_callable import JaxCallable
from ...errors import SpecError, SpecProblem
from ...spec.annotations.as_contract import spec_from_annotations
from ...spec.files.load import load_spec
from ...spec.files.read_contract import read_spec
from ..check.check_files import importing_from_here
from ..check.compare_function import prove
from ..check.named_function import NoSubject, imported
from ..plan.request import RequestError
from .arguments import arrays_of, static_of
from .examples import Example, read_examples
from .from_examples import Drafted, draft_arrays
from .probe import Probe, ProbeError
from .text import text_of

_ROUNDS = 3


@dataclass(frozen=True)
class Draft:
    """A first contract.

    Attributes:
        text: The YAML file.
        contract: The same as plain data.
        guessed: Names of dimensions that were guessed.
        problems: Where it does not hold.
    """

    text: str
    contract: Mapping[str, Any]
    guessed: tuple[str, ...] = ()
    problems: tuple[SpecProblem, ...] = field(default=())


def draft(
    target: str, examples: Sequence[str], *, static: Sequence[str] = (), name: str | None = None
) -> Draft:
    """A first contract of the function ``target``, such as ``mylib.ops:attention``.

    Imports its module, also from the current folder, and evaluates it abstractly at many sizes;
    a function that looks at values is run instead, on made-up arrays.

    Args:
        target: Module and function.
        examples: Arrays such as ``float32[8,128]``, for the parameters in order, or with the name
            of one (``x=float32[8,128]``, ``params.w=float32[128,64]``); none: take jaxtyping's
            annotations.
        static: ``NAME=VALUE`` for parameters that are no arrays and have no default.
        name: Of the contract; default: that of the function.

    Raises:
        RequestError: An example cannot be read, or a parameter has none.
        SpecError: The function cannot be imported, fails on the examples, or has no annotations
            where there are no examples.
    """
    typed = read_examples(examples)
    qualname = target.rpartition(":")[2]
    head = {"schema": "jaxtorch/1", "name": name or qualname, "version": "0.1.0"}
    head["function"] = target
    # Says what is wrong with the target and the name, as for any contract.
    stub = load_spec({**head, "inputs": {}, "outputs": {"out": "float32[]"}})
    # Standard output is for the draft.
    with importing_from_here(), contextlib.redirect_stdout(sys.stderr):
        try:
            found = imported(stub)
        except NoSubject as error:
            raise SpecError(target, error.problems) from None
        function = found.torch if isinstance(found, JaxCallable) else found
        if not typed:
            return _proven(_from_annotations(function, head), head, "its annotations")
        drafted = _from_examples(function, typed, static, target)
        return _proven(drafted, head, "one example: look at the names")


def _from_annotations(function: Callable[..., Any], head: Mapping[str, str]) -> Drafted:
    spec = spec_from_annotations(function, head["name"])
    if spec is None:
        raise RequestError(
            f"{head['function']} has no annotations in jaxtyping's form; give an example for each "
            'array: --example "float32[8,128]"'
        )
    data = spec.to_dict()
    if not spec.outputs:
        raise RequestError(
            f"the annotations of {head['function']} do not say what comes back; annotate it, or "
            'give an example for each array: --example "float32[8,128]"'
        )
    fields: dict[str, Any] = {
        key: data[key] for key in ("inputs", "static", "outputs") if key in data
    }
    notes = tuple(f"{parameter}: not read, {reason}" for parameter, reason in spec.unread)
    return Drafted(fields, {}, (), notes)


def _from_examples(
    function: Callable[..., Any], typed: Sequence[Example], static: Sequence[str], target: str
) -> Drafted:
    arrays = arrays_of(function, typed, target)
    fixed, declared = static_of(function, arrays, static, target)
    probe = Probe(function, {path: (one.dtype, one.sizes) for path, one in arrays.items()}, fixed)
    given = {
        (path, axis): name
        for path, one in arrays.items()
        for axis, name in enumerate(one.names)
        if name is not None
    }
    try:
        return draft_arrays(probe, given, declared)
    except ProbeError as error:
        expected = "a function that works on the examples"
        raise SpecError(target, (SpecProblem("function", expected, str(error)),)) from None


def _proven(drafted: Drafted, head: Mapping[str, str], source: str) -> Draft:
    """The draft with constraints added until it holds, or until nothing helps."""
    first = f"First draft by `jaxtorch infer`, from {source}."
    heading = "\n".join([first, *drafted.notes])
    constraints = list(drafted.constraints)
    # Each round proves the draft with the constraints that the last one asked for.
    for _ in range(_ROUNDS):
        contract: dict[str, Any] = {**head, **drafted.fields}
        if constraints:
            contract["constraints"] = constraints
        text = text_of(contract, heading, drafted.remarks)
        proof = prove(read_spec(text.encode(), f"{head['name']}.yaml"), numeric=drafted.runs)
        new = [one for one in proof.suggestions if one not in constraints]
        if not proof.problems or not new:
            break
        constraints += new
    return Draft(text, contract, drafted.guessed, tuple(proof.problems))
