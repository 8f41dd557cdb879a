"""What JAX will really do with the functions that contracts name.

Unlike the rest of this package it imports jax, torch and those functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...spec.model import CallableSpec
from ..check.check_files import importing_from_here
from ..check.compare_function import prove
from .collect import Versions


@dataclass(frozen=True)
class PlanView:
    """What was found out about one contract and its function.

    Attributes:
        verdict: Whether they agree, and in how many calls.
        remarks: Title and text of what JAX will do.
        problems: Where contract and function differ.
    """

    verdict: str
    remarks: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def plans_of(contracts: Mapping[str, Versions]) -> dict[str, PlanView]:
    """Label -> plan, for the newest version of each contract, if it names a function.

    Imports the modules of these functions, also from the current folder, and evaluates the
    functions on fakes, as ``jaxtorch check`` does.
    """
    # Older versions are not what the function is now.
    newest = [versions[-1] for versions in contracts.values()]
    with importing_from_here():
        return {spec.label: _plan(spec) for spec in newest if spec.function is not None}


def _plan(spec: CallableSpec) -> PlanView:
    proof = prove(spec)
    count = len(proof.problems)
    word = f"{count} problem{'s' * (count != 1)}" if count else "contract and function agree"
    verdict = f"{word}, in {proof.calls} call{'s' * (proof.calls != 1)}"
    if proof.unseen:
        verdict += f"; {proof.unseen}"
    return PlanView(verdict, tuple(proof.remarks), tuple(str(one) for one in proof.problems))
