"""The errors that jaxtorch_bridge raises, one small family under `BridgeError`.

A message says where, what was expected, what came and what to try; the facts stay on the
exception as attributes. This module imports neither jax nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass


class BridgeError(Exception):
    """Anything that jaxtorch_bridge itself objects to."""


class BridgeWarning(UserWarning):
    """Something that works, but not as well as it could or not as the caller may think."""


@dataclass(frozen=True)
class SpecProblem:
    """One problem of a contract file.

    Attributes:
        path: Where in the contract, such as ``inputs.q.dtype``; empty for the whole file.
        expected: What would have been right.
        found: What stands there instead.
        file: The file's path as given, or None for a dict.
        line: 1-based line in the file, or None.
        column: 1-based column, or None.
    """

    path: str
    expected: str
    found: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(
            str(part) for part in (self.file, self.line, self.column) if part is not None
        )
        where = f"`{self.path}`: " if self.path else ""
        return f"{place + ': ' if place else ''}{where}expected {self.expected}; got {self.found}"


class SpecError(BridgeError, ValueError):
    """A contract is not valid. Lists every problem found, not only the first.

    Attributes:
        problems: All problems, in the order of the file.
    """

    def __init__(self, source: str, problems: tuple[SpecProblem, ...]) -> None:
        self.source = source
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source}: {count} in the contract\n{lines}")


class SpecMismatchError(BridgeError, TypeError):
    """A call, or what torch returned, does not agree with the contract.

    Attributes:
        callable_name: Name (and version) of the contract.
        argument: The input or output it is about.
        sizes: Dimension names bound so far, with their sizes.
        path: The part of the contract, such as ``outputs.y``.
        place: Where that stands: ``specs/attention.yaml:7:6``.
        expected: What would have been right.
        found: What came instead.
    """

    def __init__(
        self,
        message: str,
        *,
        callable_name: str,
        argument: str,
        sizes: dict[str, int] | None = None,
        path: str = "",
        place: str = "",
        expected: str = "",
        found: str = "",
    ) -> None:
        self.callable_name = callable_name
        self.argument = argument
        self.sizes = dict(sizes or {})
        self.path = path
        self.place = place
        self.expected = expected
        self.found = found
        super().__init__(message)


class DtypeError(BridgeError, TypeError):
    """A dtype that only one of the two sides has."""


class ArgumentError(BridgeError, TypeError):
    """A call that mixes both kinds of arrays, or has a leaf that cannot be passed."""


class PlanningError(BridgeError, RuntimeError):
    """The outputs of a torch function could not be worked out before running it."""


class DynamicSizeError(PlanningError):
    """A size of an output follows from values, where it must be known without them.

    Attributes:
        callable_name: The callable that it is about.
    """

    def __init__(self, message: str, *, callable_name: str = "") -> None:
        self.callable_name = callable_name
        super().__init__(message)


class DifferentiationError(BridgeError, TypeError):
    """A derivative that cannot be taken; names what failed with each engine."""


class LackingDerivativeError(DifferentiationError):
    """Torch has no derivative of an operation, so that there is no other way to the gradient."""


class BatchingError(BridgeError, ValueError):
    """A function does not work on whole batches, though it was said to."""


class StreamOrderError(BridgeError, RuntimeError):
    """Work on a GPU ran before what it depends on, or after what it had to precede."""


class BackendError(BridgeError, ValueError):
    """A backend gives other results than the function's own code."""


class RandomnessError(BridgeError, ValueError):
    """A function that takes a random key draws random numbers that the key does not decide."""


class ShardingError(BridgeError, ValueError):
    """An array is sharded in a way that torch cannot be called on without a gather."""


class ExportError(BridgeError, ValueError):
    """A call that an exported program could not tell from another."""


class ConcurrencyError(BridgeError, RuntimeError):
    """Calls of torch functions that wait for each other's modules."""


class ModuleError(BridgeError, ValueError):
    """A module whose tensors cannot be exchanged, or parameters that do not belong to it."""


class TransferError(BridgeError, TypeError):
    """An array that cannot be handed over as it is."""


class TracedArrayError(TransferError, RuntimeError):
    """An array of JAX's that has no data yet, as inside of ``jit``."""


class NoValuesError(TransferError):
    """A tensor that only stands for others, as while a function is evaluated abstractly."""


class TorchExecutionError(BridgeError, RuntimeError):
    """A torch function failed while running; the original exception is the ``__cause__``.

    Attributes:
        callable_name: The callable that was running.
    """

    def __init__(self, message: str, *, callable_name: str = "") -> None:
        self.callable_name = callable_name
        super().__init__(message)


class MutationError(TorchExecutionError):
    """A torch function wrote to an input that is not among ``mutates`` or ``copies``.

    Attributes:
        written: Which arrays of the call, as far as is known.
    """

    def __init__(
        self, message: str, *, callable_name: str = "", written: tuple[int, ...] = ()
    ) -> None:
        self.written = written
        super().__init__(message, callable_name=callable_name)


class StaleClosureError(TorchExecutionError):
    """A derivative belongs to a function whose surroundings have changed since it was made."""


class EscapeError(TorchExecutionError):
    """A torch function kept a tensor that points to XLA's memory beyond its call."""


class OutputError(TorchExecutionError):
    """A torch function returned something else than was planned.

    Attributes:
        differs: It returned tensors, but of another number, structure, shape or dtype.
        containers: What differs is how its results are put together.
    """

    def __init__(
        self,
        message: str,
        *,
        callable_name: str = "",
        differs: bool = False,
        containers: bool = False,
    ) -> None:
        self.differs = differs
        self.containers = containers
        super().__init__(message, callable_name=callable_name)
