"""Many contract files: each checked, and compared with its function."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..._compat.jax.process import ask_for_cpu_devices
from ...errors import SpecProblem
from ...spec.files.read_all_files import read_all
from ...spec.model import CallableSpec
from .compare_function import Proof, prove

_MOST_DEVICES = 8


@dataclass(frozen=True)
class Checked:
    """What the files say and whether that is so.

    Attributes:
        files: How many there are.
        problems: Of the files alone.
        proofs: One for each valid contract that names a function.
        without_function: Labels of the others.
    """

    files: int
    problems: tuple[SpecProblem, ...]
    proofs: tuple[Proof, ...]
    without_function: tuple[str, ...]

    @property
    def all_problems(self) -> tuple[SpecProblem, ...]:
        """Those of the files, then those of the functions."""
        return (*self.problems, *(one for proof in self.proofs for one in proof.problems))


def check_contracts(paths: Iterable[str], *, numeric: bool = False) -> Checked:
    """Check the contract files below ``paths``, and compare each with its function.

    Imports the modules that the contracts name under ``function``, also from the current folder,
    and nothing else.

    Args:
        paths: Files and folders.
        numeric: Run the functions as well, on small made-up arrays.

    Raises:
        SpecError: If one of ``paths`` does not exist.
    """
    files, specs, problems = read_all(paths)
    named = [spec for spec in specs if spec.function is not None]
    if numeric and named:
        # Before anything starts JAX: shards are compared on several devices.
        ask_for_cpu_devices(min(_MOST_DEVICES, max(_shards(spec) for spec in named)))
    with importing_from_here():
        proofs = tuple(prove(spec, numeric=numeric) for spec in named)
    free = tuple(spec.label for spec in specs if spec.function is None)
    return Checked(files, problems, proofs, free)


def _shards(spec: CallableSpec) -> int:
    # Two along every mesh axis, as `shards` cuts.
    return 1 << len(set(spec.sharding.values()))


@contextlib.contextmanager
def importing_from_here() -> Iterator[None]:
    """Let modules of the current folder be imported, as ``python -m`` does."""
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        # What was imported may have taken it out again.
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
