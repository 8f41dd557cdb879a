"""From what a person asks to the outline of one call."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import SpecError
from ...spec.model import CallableSpec
from ..check.check_files import importing_from_here
from ..check.named_function import NoSubject, Subject, subject_of
from ..check.problems import problem_at
from .outline import outline_of
from .request import case_of, contract_named, mesh_of


@contextlib.contextmanager
def function_of(spec: CallableSpec) -> Iterator[Subject]:
    """A contract's function, while it can be run.

    Imports the module that the contract names, also from the current folder. What that and the
    function print goes to standard error: it must not mix with what is said of it, maybe in JSON.

    Raises:
        SpecError: The contract names none, or does not fit it.
    """
    if spec.function is None:
        problem = problem_at(spec, "", "a contract that names its `function`", "none")
        raise SpecError(spec.label, (problem,))
    with importing_from_here(), contextlib.redirect_stdout(sys.stderr):
        try:
            subject = subject_of(spec)
        except NoSubject as error:
            raise SpecError(spec.label, error.problems) from None
        yield subject


def outline_named(
    name: str,
    shape: Sequence[str],
    *,
    static: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    without: Sequence[str] = (),
    mesh: Sequence[str] = (),
    batch: int = 2,
) -> dict[str, Any]:
    """The outline of a call of a contract's function; see `case_of` and `function_of`.

    Raises:
        RequestError: The texts do not fit the contract.
        SpecError: There is no such contract, or it does not fit its function.
        BridgeError: The call cannot be planned.
    """
    spec = contract_named(name)
    case = case_of(spec, shape, static=static, dtypes=dtypes, without=without)
    axes = mesh_of(mesh, spec)
    with function_of(spec) as subject:
        return outline_of(subject, case, batch=batch, mesh=axes)
