"""A torch function over flat tensors, registered under a stable key."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...dtypes import DTYPES
from ...planner.array_signature import ArraySig
from ...planner.op_keys import root_of_key
from ..handler.failure_messages import Faults, Watch, recorded, translated
from ..handler.native_module import native
from ..handler.torch_settings import InContext, TorchContext

if TYPE_CHECKING:
    from ..batch.batched_linear_part import BatchedLinearized
    from ..batch.batched_op import Batched
    from ..closure.closure_state import ClosureState
    from ..derive.forward_mode import Pushforward
    from ..derive.linear_part import Linearized
    from ..functions.source import Source
    from .program import Program


_live: weakref.WeakValueDictionary[str, TorchOp] = weakref.WeakValueDictionary()


class Keeper(dict[Any, Any]):
    """What the JAX side keeps as long as somebody can call the op: compiled eager forms.

    The op refers to it weakly. Compiled forms refer to the op, through closures and through
    JAX's caches of traced code; a strong reference back would keep them all for ever.
    """


class TorchOp:
    """What the JAX side needs of a torch function: flat signature, key, what derives from it.

    Equal only to itself. The native table forgets the op when this object and every executable
    that calls it are gone.

    Attributes:
        label: Name for messages.
        key: Key in the native op table; unique among live ops.
        inputs: Flat inputs.
        outputs: Flat outputs.
        handle: Owns the table entry.
        keeper: Where the JAX side keeps compiled forms; None once nobody can call the op.
        source: What it computes, to be differentiated; None for ops that are linear parts.
        program: What it runs, for derived ops.
        into: Outputs that ``run`` writes into XLA's buffers itself; tensors over these come behind
            the inputs.
        results: For each output, how it gets into XLA's buffer, in words.
        aliases: Inputs that ``run`` writes to, each with the output that has its memory.
        primal: For an op that returns residuals as well: the linearization that they are for.
        split: For an op that gives results and tangents together: the op and the inputs that
            carry the tangents.
    """

    def __init__(
        self,
        label: str,
        key: str,
        inputs: Sequence[ArraySig],
        outputs: Sequence[ArraySig],
        run: Callable[..., Any],
        context: TorchContext,
        *,
        into: Sequence[int] = (),
        results: Sequence[str] = (),
        aliases: Sequence[tuple[int, int]] = (),
        static: Sequence[tuple[str, str]] = (),
        hold_storages: bool = False,
        may_be_lazy: bool = True,
        contract: str = "",
        source: Source | None = None,
        program: Program | None = None,
    ) -> None:
        self.label = label
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.into = tuple(into)
        self.results = tuple(results)
        self.aliases = tuple(aliases)
        self.source = source
        self.program = program
        self.primal: Linearized | BatchedLinearized | None = None
        self.split: tuple[TorchOp, tuple[int, ...]] | None = None
        self._keeper: weakref.ref[Keeper] | None = None
        self._derived: dict[Any, Any] = {}
        self._lock = threading.RLock()
        dtypes = tuple(DTYPES[sig.torch_dtype].dlpack for sig in self.outputs)
        faults = Faults(label, self.inputs, self.outputs, static, contract)
        in_context = InContext(run, context)
        self.key, self.handle = _register(
            key,
            self.home.closure,
            run,
            in_context,
            faults,
            dtypes,
            tuple(into),
            self.aliases,
            context.plain,
            hold_storages,
            may_be_lazy,
        )
        _live[self.key] = self

    @property
    def has_double(self) -> bool:
        """Whether a live op of another function has the same key but for a number."""
        root = root_of_key(self.key)
        return any(key.startswith(f"{root}#") for key in native().op_keys())

    @property
    def home(self) -> Source:
        """The source whose terms hold for it, be it a linear part."""
        if self.source is not None:
            return self.source
        assert self.program is not None
        return self.program.home

    @property
    def unrolled(self) -> bool:
        """Whether ``jax.vmap`` writes one call for each element into the program."""
        return self.home.terms.vmap_method == "sequential_unrolled"

    @property
    def draws(self) -> bool:
        """Whether it may draw from torch's generators as they stand when it runs."""
        source = self.source if self.primal is None else self.primal.source
        return source is not None and source.draws

    @property
    def keeper(self) -> Keeper | None:
        """Where compiled forms of this op are kept."""
        return None if self._keeper is None else self._keeper()

    def kept_by(self, keeper: Keeper) -> None:
        """Let ``keeper``, which the caller holds, own the compiled forms."""
        self._keeper = weakref.ref(keeper)

    @staticmethod
    def refused(error: Exception) -> Exception:
        """The error itself; an eager call whose compilation it fails raises it."""
        return recorded(error)

    @staticmethod
    def translated(error: BaseException) -> BaseException | None:
        """What an eager call raises in place of JAX's error; see `faults.translated`."""
        return translated(error)

    @staticmethod
    def watch() -> Watch:
        """What torch does in this thread from now on."""
        return Watch()

    def belongs_to(self, other: TorchOp) -> None:
        """Keep compiled forms where another op keeps its own."""
        self._keeper = other._keeper

    @property
    def derivatives(self) -> tuple[Any, ...]:
        """The derivatives that have been built so far."""
        return tuple(item for key, item in self._derived.items() if key[0] != "batched")

    @property
    def batches(self) -> tuple[Any, ...]:
        """The batched forms that have been built so far."""
        return tuple(item for key, item in self._derived.items() if key[0] == "batched")

    def linearize(self, wrt: tuple[int, ...]) -> Linearized:
        """The derivative with respect to these inputs, built at first use.

        Raises:
            DifferentiationError: No rung of the ladder works.
        """
        from ..derive.linear_part import linearize

        found: Linearized = self._build(("linearize", wrt), lambda: linearize(self, wrt))
        return found

    def pushforward(self, wrt: tuple[int, ...]) -> Pushforward:
        """Results and tangents from one run, built at first use.

        Raises:
            DifferentiationError: It cannot be differentiated forwards.
        """
        from ..derive.forward_mode import pushforward

        found: Pushforward = self._build(("pushforward", wrt), lambda: pushforward(self, wrt))
        return found

    def batched(self, size: int, dims: tuple[int | None, ...], *, loop: bool = False) -> Batched:
        """The op for a whole batch, or why there is none.

        Args:
            size: Of the batch.
            dims: For each input its batch axis, or None.
            loop: Call one by one, inside of torch, where one call will not do.
        """
        from ..batch.batched_op import batch

        key = ("batched", size, dims, loop)
        found: Batched = self._build(key, lambda: batch(self, size, dims, loop))
        return found

    def _build(self, key: Any, build: Callable[[], Any]) -> Any:
        with self._lock:
            found = self._derived.get(key)
            if found is None or not found.fresh:
                scope = contextlib.nullcontext() if self.source is None else self._scope()
                with scope:
                    found = self._derived[key] = build()
                for op in found.ops:
                    op.belongs_to(self)
            return found

    def _scope(self) -> contextlib.AbstractContextManager[None]:
        assert self.source is not None
        return self.source.context.scope()

    def __repr__(self) -> str:
        return f"TorchOp({self.key})"


def _register(
    key: str,
    owner: ClosureState,
    run: Callable[..., Any],
    in_context: Callable[..., Any],
    faults: Faults,
    dtypes: tuple[tuple[int, int], ...],
    into: tuple[int, ...],
    aliases: tuple[tuple[int, int], ...],
    plain: bool,
    hold_storages: bool,
    may_be_lazy: bool,
) -> tuple[str, Any]:
    """Add to the native table; live ops that look alike are told apart by a number.

    It follows ``~`` where either will do for a program from elsewhere, as they belong to one
    callable or have no state, and ``#`` where they may differ.
    """
    number, mark = 1, "#"
    while True:
        name = key if number == 1 else f"{key}{mark}{number}"
        handle = native().register_op(
            name, run, in_context, faults, dtypes, into, aliases, plain, hold_storages, may_be_lazy
        )
        if handle is not None:
            return name, handle
        found = _live.get(name)
        same = found is not None and found.home.closure is owner
        if number == 1 and (same or not owner.stateful):
            mark = "~"
        number += 1
