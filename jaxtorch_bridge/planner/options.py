"""What `jax_callable` was asked for besides the contract, and which of both holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from ..choices import Backend, ConcurrencyMode, RandomMode, VmapMethod, renamed
from ..dotted_names import in_both
from ..errors import ArgumentError
from .declared_outputs import NOTHING_DECLARED, Declared

if TYPE_CHECKING:
    from ..spec.model import CallableSpec


@dataclass(frozen=True)
class Options:
    """Keywords of `jax_callable` that decide what a call means.

    Attributes:
        nondiff: Paths of array leaves without a derivative.
        vmap_method: What ``jax.vmap`` does; None: what the contract says.
        verify: Whether the first batched run is compared with single calls; None: likewise.
        concurrency: How calls on several devices share modules; None: what the contract says, or
            what is best.
        declared: What stands in for a contract.
        random: Whether every call takes a random key; None: what the contract says.
        mutates: Arguments that the function writes to; None: what the contract says.
        copies: Arguments of which it gets a copy of its own; None: likewise.
        backend: What runs it; None: likewise.
        islands: Whether torch may run what XLA cannot; None: likewise.
        cuda_graph: Whether XLA may record calls on a GPU; None: likewise.
    """

    nondiff: tuple[str, ...] = ()
    vmap_method: VmapMethod | None = None
    verify: bool | None = None
    concurrency: ConcurrencyMode | None = None
    declared: Declared = NOTHING_DECLARED
    random: RandomMode | None = None
    mutates: tuple[str, ...] | None = None
    copies: tuple[str, ...] | None = None
    backend: Backend | None = None
    islands: bool | None = None
    cuda_graph: bool | None = None

    def refuse_invalid(self) -> None:
        """Object to values that mean nothing.

        Raises:
            ArgumentError: Names the keyword and what it may be.
        """
        choices = (
            ("vmap_method", VmapMethod),
            ("concurrency", ConcurrencyMode),
            ("random", RandomMode),
            ("backend", Backend),
        )
        for name, words in choices:
            value, known = getattr(self, name), get_args(words)
            if value is not None and value not in known:
                raise ArgumentError(
                    f"jax_callable: expected {name} as one of {', '.join(known)}; got {value!r}"
                    f"{renamed(name, value)}."
                )
        _refuse_both(self.mutates or (), self.copies or ())

    def with_backend(self, backend: Backend) -> Options:
        """The same with another backend, and without what that cannot follow.

        Raises:
            ArgumentError: There is no such backend.
        """
        cuda_graph = self.cuda_graph if backend == "graph" else None
        options = replace(self, backend=backend, cuda_graph=cuda_graph)
        options.refuse_invalid()
        return options

    def refuse_recording_code(self, backend: Backend) -> None:
        """Object to ``cuda_graph`` where the function's own code runs.

        Args:
            backend: What runs the function, by the contract or the caller.

        Raises:
            ArgumentError: Says what to pass.
        """
        if self.cuda_graph and backend != "graph":
            raise ArgumentError(
                "jax_callable: expected backend='graph' beside cuda_graph=True, since no Python "
                f"code runs when XLA repeats what it has recorded; got backend={backend!r}."
            )

    def refuse_contradiction(self, spec: CallableSpec) -> None:
        """Object to a keyword that says something else than the contract.

        Raises:
            ArgumentError: Shows both.
        """
        for name in ("vmap_method", "verify", "concurrency", "random", "mutates", "copies"):
            mine, theirs = getattr(self, name), getattr(spec, name)
            # What a contract leaves at its default it does not say, so a keyword may.
            if mine is not None and name in spec.model_fields_set and mine != theirs:
                raise ArgumentError(
                    f"jax_callable: {name}={mine!r} was passed, but the contract says `{name}: "
                    f"{theirs}` [{spec.where(name)}]. Say it in one place."
                )
        execution = spec.execution
        for name in ("backend", "islands", "cuda_graph"):
            mine, theirs = getattr(self, name), getattr(execution, name)
            said = "execution" in spec.model_fields_set and name in execution.model_fields_set
            if mine is not None and said and mine != theirs:
                words = str(theirs).lower() if isinstance(theirs, bool) else theirs
                raise ArgumentError(
                    f"jax_callable: {name}={mine!r} was passed, but the contract says `{name}: "
                    f"{words}` [{spec.where(f'execution.{name}')}]. Say it in one place."
                )
        _refuse_both(
            spec.mutates if self.mutates is None else self.mutates,
            spec.copies if self.copies is None else self.copies,
        )


def _refuse_both(mutates: tuple[str, ...], copies: tuple[str, ...]) -> None:
    for name in in_both(copies, mutates):
        raise ArgumentError(
            f"jax_callable: expected `{name}` under `mutates` or under `copies`; got both. With "
            "`mutates` the new value comes back, with `copies` what is written is lost: choose one."
        )


NO_OPTIONS = Options()
