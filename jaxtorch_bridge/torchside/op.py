"""A torch function over flat tensors, registered under a stable key."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES
from ..planner.signature import ArraySig
from .context import InContext, TorchContext
from .faults import Faults
from .native import native

if TYPE_CHECKING:
    from .linearize import Linearized


class Keeper(dict[Any, Any]):
    """What the JAX side keeps as long as somebody can call the op: compiled eager forms.

    The op refers to it weakly. Compiled forms refer to the op, through closures and through
    JAX's caches of traced code; a strong reference back would keep them all for ever.
    """


Linearizer = Callable[[tuple[int, ...]], "Linearized"]


class TorchOp:
    """What the JAX side needs of a torch function: flat signature, key, derivatives.

    Equal only to itself. The native table forgets the op when this object and every executable
    that calls it are gone.

    Attributes:
        label: Name for messages.
        key: Key in the native op table; unique among live ops.
        inputs: Flat inputs.
        outputs: Flat outputs.
        handle: Owns the table entry.
        keeper: Where the JAX side keeps compiled forms; None once nobody can call the op.
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
        static: Sequence[tuple[str, str]] = (),
        hold_storages: bool = False,
        may_be_lazy: bool = True,
        linearizer: Linearizer | None = None,
        contract: str = "",
    ) -> None:
        self.label = label
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._keeper: weakref.ref[Keeper] | None = None
        self._linearizer = linearizer
        self._linearized: dict[tuple[int, ...], Linearized] = {}
        self._lock = threading.RLock()
        dtypes = tuple(DTYPES[sig.torch_dtype].dlpack for sig in self.outputs)
        faults = Faults(label, self.inputs, self.outputs, static, contract)
        in_context = InContext(run, context)
        self.key, self.handle = _register(
            key, run, in_context, faults, dtypes, context.plain, hold_storages, may_be_lazy
        )

    @property
    def keeper(self) -> Keeper | None:
        """Where compiled forms of this op are kept."""
        return None if self._keeper is None else self._keeper()

    def kept_by(self, keeper: Keeper) -> None:
        """Let ``keeper``, which the caller holds, own the compiled forms."""
        self._keeper = weakref.ref(keeper)

    @property
    def linearized(self) -> tuple[Linearized, ...]:
        """The derivatives that have been built so far."""
        return tuple(self._linearized.values())

    def linearize(self, wrt: tuple[int, ...]) -> Linearized:
        """The derivative with respect to these inputs, built at first use.

        Raises:
            DifferentiationError: No rung of the ladder works.
        """
        with self._lock:
            found = self._linearized.get(wrt)
            if found is None or not found.fresh:
                if self._linearizer is None:
                    from ..errors import DifferentiationError

                    raise DifferentiationError(
                        f"{self.label.partition(' (')[0]}: derivatives of second order are not "
                        "available yet; first-order reverse mode (jax.grad, jax.vjp) is. Write the "
                        "outer derivative with jax.custom_vjp, or take both inside torch."
                    )
                found = self._linearized[wrt] = self._linearizer(wrt)
                for derived in (found.forward, found.pullback):
                    if derived is not None:
                        derived._keeper = self._keeper
            return found

    def __repr__(self) -> str:
        return f"TorchOp({self.key})"


def _register(
    key: str,
    run: Callable[..., Any],
    in_context: Callable[..., Any],
    faults: Faults,
    dtypes: tuple[tuple[int, int], ...],
    plain: bool,
    hold_storages: bool,
    may_be_lazy: bool,
) -> tuple[str, Any]:
    """Add to the native table; live ops that look alike are told apart by a number."""
    number = 1
    while True:
        name = key if number == 1 else f"{key}#{number}"
        handle = native().register_op(
            name, run, in_context, faults, dtypes, plain, hold_storages, may_be_lazy
        )
        if handle is not None:
            return name, handle
        number += 1
