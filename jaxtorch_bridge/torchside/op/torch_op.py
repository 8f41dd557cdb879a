"""What an op is, as data: a torch function over flat tensors under a key of the native table."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from ...planner.array_signature import ArraySig
from ...planner.aten_program import AtenProgram
from ...planner.op_keys import root_of_key
from ...planner.op_steps import Steps
from ..functions.tensor_function import TensorFunction
from ..handler.failure_messages import Watch, recorded, translated
from ..handler.native_module import native
from .aten_steps import Read
from .command_buffers import NOT_ASKED, Recording
from .program import Program

T = TypeVar("T")


class Keeper(dict[Any, Any]):
    """What the JAX side keeps as long as somebody can call the op: compiled eager programs.

    The op refers to it weakly. Compiled programs refer to the op, through closures and through
    JAX's caches of traced code; a strong reference back would keep them all for ever.
    """


class LinearPartOf(Protocol):
    """The linear part that a forward saves residuals for; see `derive.linear_part`."""

    @property
    def op(self) -> TorchOp | None:
        """The function."""

    @property
    def fn(self) -> TensorFunction:
        """What it computes."""

    wrt: tuple[int, ...]


class Family(Protocol):
    """Knows what derives from an op and what batches it; see `op_family`.

    An op refers to it and knows no member of it, so that derivatives and batches can be built of
    ops. All ops that come from one planned function have the same one.
    """

    @property
    def keeper(self) -> Keeper | None:
        """Where the JAX side keeps compiled programs; None once nobody can call the ops."""

    @property
    def recipe(self) -> str:
        """What another process plans the function's own op from."""

    def linearize(self, op: TorchOp, wrt: tuple[int, ...]) -> Any:
        """The derivative with respect to these inputs."""

    def pushforward(self, op: TorchOp, wrt: tuple[int, ...]) -> Any:
        """Results and tangents from one run."""

    def transposed(
        self, op: TorchOp, wrt: tuple[int, ...], outs: tuple[int, ...], known: Any
    ) -> Any:
        """The derivative by inputs in which the op is linear."""

    def batched(
        self, op: TorchOp, size: int, dims: tuple[int | None, ...], *, loop: bool = False
    ) -> Any:
        """The op for a whole batch."""

    def island(self, op: TorchOp, first: int, last: int) -> TorchOp:
        """What runs some steps of ``op.aten``."""

    def verifier(self, op: TorchOp) -> TorchOp:
        """What compares the first run of ``op.aten`` with torch."""


@dataclass(frozen=True, eq=False)
class Function:
    """The role of an op that can be differentiated.

    Attributes:
        fn: What it computes.
    """

    tag: ClassVar[str] = "function"
    fn: TensorFunction


@dataclass(frozen=True, eq=False)
class WithTangents(Function):
    """The role of an op that gives the results of another op and their tangents together.

    Attributes:
        op: The other op.
        wrt: Its inputs that carry a tangent.
    """

    tag: ClassVar[str] = "with tangents"
    op: TorchOp
    wrt: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SavingForward:
    """The role of an op that returns residuals behind a function's outputs.

    Attributes:
        linear: What the residuals are for.
    """

    tag: ClassVar[str] = "saving forward"
    linear: LinearPartOf


@dataclass(frozen=True, eq=False)
class LinearOp:
    """The role of an op that computes the linear part of a derivative; its own comes from there."""

    tag: ClassVar[str] = "linear op"


Role = Function | SavingForward | LinearOp


class Derived:
    """What has been derived from an op so far, each built once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}
        # Reentrant: what is built may ask for another derivative of the same op.
        self._lock = threading.RLock()

    def find(self, key: tuple[Any, ...], build: Callable[[], T]) -> T:
        """What was built under the key, if it still holds; otherwise it is built."""
        with self._lock:
            found = self._found.get(key)
            if found is None or not found.fresh:
                found = self._found[key] = build()
            return found

    def named(self, *names: str) -> tuple[Any, ...]:
        """Everything that stands under keys that begin with one of the names."""
        return tuple(item for key, item in self._found.items() if key[0] in names)


@dataclass(frozen=True, eq=False, repr=False)
class TorchOp:
    """What the JAX side needs of a torch function, and what its derivatives are made from.

    Equal only to itself. The native table forgets the op when this object and every executable
    that calls it are gone. Made by `make_op`.

    Attributes:
        label: Name for messages.
        key: Key in the native op table; unique among live ops.
        handle: Owns the table entry.
        inputs: Flat inputs.
        outputs: Flat outputs.
        role: What it is to other ops.
        program: What it computes, to be batched or repeated. The op of a function's own calls runs
            the function's Python code, with less around it.
        family: What derives from it and what batches it.
        steps: How it derives from the function's own op.
        into: Outputs that it writes into XLA's buffers itself.
        results: For each output, how it gets into XLA's buffer, in words.
        aliases: Inputs that it writes to, each with the output that has its memory.
        read: Its graph as operations of which JAX makes the program in place of a call, if it does.
        recording: Whether XLA may record its calls on a GPU and run what they launched.
        derived: What has been derived from it so far.
    """

    label: str
    key: str
    handle: Any
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    role: Role
    program: Program
    family: Family
    steps: Steps = ()
    into: tuple[int, ...] = ()
    results: tuple[str, ...] = ()
    aliases: tuple[tuple[int, int], ...] = ()
    read: Read | None = None
    recording: Recording = NOT_ASKED
    derived: Derived = field(default_factory=Derived)

    @property
    def aten(self) -> AtenProgram | None:
        """The operations of which JAX makes the program in place of a call, if it does."""
        return None if self.read is None else self.read.program

    @property
    def fn(self) -> TensorFunction | None:
        """What it computes, to be differentiated; None for parts of a derivative."""
        return self.role.fn if isinstance(self.role, Function) else None

    @property
    def home(self) -> TensorFunction:
        """The tensor function whose terms hold for it, be it a linear part."""
        return self.program.home

    @property
    def has_double(self) -> bool:
        """Whether a live op of another function has the same key but for a number."""
        root = root_of_key(self.key)
        return any(key.startswith(f"{root}#") for key in native().op_keys())

    @property
    def unrolled(self) -> bool:
        """Whether ``jax.vmap`` writes one call for each element into the program."""
        return self.home.terms.vmap_method == "sequential_unrolled"

    @property
    def is_recorded(self) -> bool:
        """Whether XLA may record its calls on a GPU and run what they launched in their place."""
        return self.recording.is_possible

    @property
    def no_islands(self) -> str:
        """Where a contract says that torch runs no part of it; empty if it may."""
        terms = self.home.terms
        if terms.islands:
            return ""
        return f"`islands: false` [{terms.islands_at}]" if terms.islands_at else "`islands=False`"

    @property
    def verified(self) -> bool:
        """Whether what XLA gives is compared with what torch gives, once."""
        return self.home.terms.verify

    @property
    def draws(self) -> bool:
        """Whether it may draw from torch's generators as they stand when it runs."""
        role = self.role
        if isinstance(role, Function):
            return role.fn.draws
        return isinstance(role, SavingForward) and role.linear.fn.draws

    @property
    def keeper(self) -> Keeper | None:
        """Where compiled programs of this op are kept."""
        return self.family.keeper

    @property
    def recipe(self) -> str:
        """What another process plans the function's own op from."""
        return self.family.recipe

    def then(self, *step: Any) -> Steps:
        """The steps of an op that derives from this one by one more."""
        return (*self.steps, step)

    # The JAX side does not import these: it finds them by the op.
    @staticmethod
    def refused(error: Exception) -> Exception:
        """The error itself; an eager call whose compilation it fails raises it."""
        return recorded(error)

    @staticmethod
    def translated(error: BaseException) -> BaseException | None:
        """What an eager call raises in place of JAX's error; see `failure_messages.translated`."""
        return translated(error)

    @staticmethod
    def watch() -> Watch:
        """What torch does in this thread from now on."""
        return Watch()

    def __repr__(self) -> str:
        return f"TorchOp({self.key})"


@dataclass(frozen=True, eq=False)
class Companion:
    """An op of a part of another's graph, or beside it; built once, as `Derived` keeps things.

    Attributes:
        op: The op. It refuses by itself to run once the graph is out of date.
    """

    op: TorchOp
    fresh: ClassVar[bool] = True
