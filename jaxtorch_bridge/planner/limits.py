"""What a contract may ask for that this version does not do yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SpecError, SpecProblem

if TYPE_CHECKING:
    from ..spec.model import CallableSpec


def refuse_unsupported(spec: CallableSpec) -> None:
    """Object to fields that would change what a call means.

    Raises:
        SpecError: The contract declares mutation, randomness or another backend.
    """
    problems = []
    if spec.mutates:
        problems.append(("mutates", "no entries (declared mutation is not available yet)"))
    if spec.random != "none":
        problems.append(("random", "`none` (random keys are not available yet)"))
    if spec.execution.backend not in ("auto", "eager"):
        problems.append(("execution.backend", "`auto` or `eager` (others are not available yet)"))
    if problems:
        found = {
            "mutates": ", ".join(spec.mutates),
            "random": spec.random,
            "execution.backend": spec.execution.backend,
        }
        raise SpecError(
            spec.label,
            tuple(
                SpecProblem(path, f"{expected} [{spec.where(path)}]", f"`{found[path]}`")
                for path, expected in problems
            ),
        )


def not_acted_on(spec: CallableSpec | None) -> tuple[str, ...]:
    """Fields that are only about speed or placement and have no effect yet, for `explain`."""
    if spec is None:
        return ()
    notes = []
    if spec.sharding:
        notes.append("sharding: no effect yet; under a mesh use jax.shard_map")
    asked = "vmap_method" in spec.model_fields_set
    if asked and spec.vmap_method not in ("sequential", "sequential_unrolled"):
        notes.append(f"vmap_method {spec.vmap_method}: no effect yet; vmap calls one by one")
    if spec.execution.outputs == "in_place":
        notes.append("execution.outputs in_place: no effect yet; results are copied")
    return tuple(notes)
