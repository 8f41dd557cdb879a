"""Results that torch writes straight into XLA's buffers, where a captured graph says what to write.

The op that makes a result is replaced by its ``out=`` form, with a tensor over XLA's buffer to
write to. What stands between the op and the result may be views, as long as the result covers the
op's memory: both are then the same memory under other sizes and strides.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..._compat.torch.capture.graphs import remove_dead_code
from ..._compat.torch.operators.out_forms import is_strided_view_op, out_form
from ...choices import OutputsMode
from ...dtypes import DTYPES
from ...planner.array_signature import ArraySig
from ..functions.tensor_function import Core
from .memory_layout import fills_its_memory

# Below this, a copy costs less than a tensor over the buffer. On a GPU it is one more kernel.
_WORTHWHILE_BYTES = {"cpu": 32 << 10, "cuda": 0}
# A call of Python's for each, while the result is in the cache; later the copy reads memory.
_WORTHWHILE_BYTES_AS_FOUND = 128 << 10


@dataclass(frozen=True, eq=False)
class ResultsInPlace:
    """How a core's results get into XLA's buffers.

    Attributes:
        core: The core; behind its inputs it takes one tensor for each of ``into``. None if all
            are copied.
        into: Results that are written in place.
        words: For each result, how it is written, for `explain`.
    """

    core: Callable[..., Sequence[torch.Tensor]] | None
    into: tuple[int, ...]
    words: tuple[str, ...]


def write_in_place(
    core: Any,
    outputs: Sequence[ArraySig],
    device: str,
    mode: OutputsMode,
    writing: Callable[[tuple[int, ...]], Core] | None = None,
) -> ResultsInPlace:
    """Rewrite a core's graph so that it writes what it can in place.

    Args:
        core: What computes the outputs.
        outputs: Its results.
        device: ``cpu`` or ``cuda``.
        mode: What the contract says; ``auto``: where it pays.
        writing: Of a core without a graph; see `Program`.
    """
    if mode == "copy":
        return copied(outputs, "execution.outputs is copy")
    if not isinstance(core, fx.GraphModule):
        # On a GPU nobody has tried what copies in the middle of a backward wait for.
        if writing is not None and device == "cpu":
            return _as_found(writing, outputs, mode)
        return copied(outputs, "no graph")
    words: dict[int, str] = {}
    wanted: list[int] = []
    for index, sig in enumerate(outputs):
        reason = unfit(sig, mode, _WORTHWHILE_BYTES[device])
        if reason:
            words[index] = f"copied: {reason}"
        else:
            wanted.append(index)
    rewritten = _Rewriting(core, device, wanted, outputs)
    words |= rewritten.words
    texts = tuple(words[index] for index in range(len(outputs)))
    if not rewritten.into:
        return ResultsInPlace(None, (), texts)
    return ResultsInPlace(rewritten.module(), rewritten.into, texts)


def copied(outputs: Sequence[ArraySig], reason: str) -> ResultsInPlace:
    """Nothing is written in place."""
    return ResultsInPlace(None, (), (f"copied: {reason}",) * len(outputs))


def _as_found(
    writing: Callable[[tuple[int, ...]], Core], outputs: Sequence[ArraySig], mode: OutputsMode
) -> ResultsInPlace:
    """Each result is copied as soon as it is there, and what it is copied from is let go."""
    reasons = [
        # In JAX's convention complex gradients are conjugated, which is a copy by itself.
        "it is complex"
        if DTYPES[sig.dtype].kind == "complex"
        else unfit(sig, mode, _WORTHWHILE_BYTES_AS_FOUND)
        for sig in outputs
    ]
    words = tuple(
        f"copied: {reason}" if reason else "copied when it is found" for reason in reasons
    )
    into = tuple(index for index, reason in enumerate(reasons) if not reason)
    return ResultsInPlace(writing(into), into, words) if into else ResultsInPlace(None, (), words)


def unfit(sig: ArraySig, mode: OutputsMode, worthwhile_bytes: int) -> str:
    """Why a result is not to be written in place whatever makes it, or the empty string."""
    # The buffer is of JAX's dtype, and what torch computes has to be cast into it.
    if sig.dtype != sig.torch_dtype:
        return f"torch's {sig.torch_dtype} becomes {sig.dtype}"
    if sig.is_symbolic:
        return "its size is not known"
    if sig.size_bytes == 0:
        return "it is empty"
    if mode == "auto" and sig.size_bytes < worthwhile_bytes:
        return f"for {sig.size_bytes} bytes that costs less"
    return ""


@dataclass(eq=False)
class _Rewriting:
    """A copy of a graph in which ops write to further arguments.

    Attributes:
        into: Results that are written in place, in the order of the new arguments.
        words: For each result that was wanted, what became of it.
    """

    original: Any
    device: str
    wanted: Sequence[int]
    outputs: Sequence[ArraySig]
    into: tuple[int, ...] = ()
    words: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A copy: the program keeps its own graph, which is what gets batched and differentiated.
        self._graph = fx.Graph()
        names: dict[fx.Node, fx.Node] = {}
        output: Any = self._graph.graph_copy(self.original.graph, names)
        for old, new in names.items():
            new.meta = dict(old.meta)
        self._graph.output(output)
        # Results with one maker: of an op with several results, all are written in one go.
        makers: dict[fx.Node, list[tuple[int, fx.Node]]] = {}
        taken: set[fx.Node] = set()
        for index in self.wanted:
            base, reason = _maker(output[index])
            # One memory cannot be two of XLA's buffers.
            if base in taken:
                reason = "it shares memory with another result"
            if base is None or reason:
                self.words[index] = f"copied: {reason}"
                continue
            taken.add(base)
            op: Any = base.args[0] if base.target is operator.getitem else base
            makers.setdefault(op, []).append((index, base))
        for op, results in makers.items():
            self._write(op, results)
        # The native table wants them ascending, and hands over buffers in this order.
        self.into = tuple(sorted(self.into))
        self._place_arguments()

    def module(self) -> Any:
        """The rewritten graph."""
        # Writes stay: an op whose schema says that it writes is never dead to torch.fx.
        remove_dead_code(self._graph)
        self._graph.lint()
        return fx.GraphModule(self.original, self._graph)

    def _write(self, op: fx.Node, results: Sequence[tuple[int, fx.Node]]) -> None:
        """Have one op write the results that it makes."""
        form = out_form(op.target, self.device)
        # Of an op with several results each is a node of its own that takes it out of the tuple;
        # the result of any other op is its own node.
        if form is None or (len(form.names) > 1) != (results[0][1] is not op):
            for index, _ in results:
                self.words[index] = f"copied: {op.target} has no form that writes in place"
            return
        buffers = {index: self._graph.placeholder(f"into_{index}") for index, _ in results}
        for index, _ in results:
            self.words[index] = f"in place, by {form.target}"
        self.into += tuple(buffers)
        with self._graph.inserting_before(op):
            targets: list[Any] = [None] * len(form.names)
            for index, base in results:
                slot = _slot(base, op)
                targets[slot] = self._shaped(index, buffers[index], base.meta["val"])
            # An ``out=`` form wants a tensor for each result, also for those that nobody asked for
            # in place.
            for slot, target in enumerate(targets):
                if target is None:
                    targets[slot] = self._scratch(op, slot)
            call = form.call(self._graph, op, targets)
        for _, base in results:
            slot = _slot(base, op)
            # Who used the result now reads the buffer. From here on the order of the nodes alone
            # says that the write comes first.
            targets[slot].meta["val"] = base.meta["val"]
            base.replace_all_uses_with(targets[slot], delete_user_cb=lambda user: user is not call)
        # The results that were not wanted are read from their scratch memory.
        if results[0][1] is not op:
            for user in list(op.users):
                user.replace_all_uses_with(targets[_slot(user, op)])
                self._graph.erase_node(user)
        self._graph.erase_node(op)

    def _shaped(self, index: int, buffer: fx.Node, value: torch.Tensor) -> fx.Node:
        """The buffer as the op's result is laid out."""
        if tuple(value.shape) == self.outputs[index].shape and value.is_contiguous():
            return buffer
        return self._graph.call_function(
            torch.ops.aten.as_strided.default, (buffer, list(value.shape), list(value.stride()))
        )

    def _scratch(self, op: fx.Node, slot: int) -> fx.Node:
        """Memory for a result that is not wanted in place."""
        value = op.meta["val"][slot]
        made = self._graph.call_function(
            torch.ops.aten.empty_strided.default,
            (list(value.shape), list(value.stride())),
            {"dtype": value.dtype, "device": torch.device(self.device)},
        )
        made.meta["val"] = value
        return made

    def _place_arguments(self) -> None:
        """New arguments come behind the old ones, ascending."""
        # They were made at the end of the graph, and it takes its arguments in the order of nodes.
        found = {n.target: n for n in self._graph.nodes if n.op == "placeholder"}
        first = next(node for node in self._graph.nodes if node.op != "placeholder")
        for index in self.into:
            first.prepend(found[f"into_{index}"])


def _slot(base: fx.Node, op: fx.Node) -> int:
    """Which result of the op a node is."""
    if base is op:
        return 0
    number = base.args[1]
    assert isinstance(number, int)
    return number


def _maker(result: Any) -> tuple[fx.Node | None, str]:
    """The node that makes a result's memory, or why it cannot write it to XLA's buffer."""
    if not isinstance(result, fx.Node):
        return None, "it is no tensor"
    value = result.meta.get("val")
    if value is None:
        return None, "its layout is not known"
    if not value.is_contiguous():
        return None, "it is not row-major"
    node = result
    # Such an op views its first argument.
    while node.op == "call_function" and is_strided_view_op(node.target):
        node = node.all_input_nodes[0]
    if node.op != "call_function":
        return None, "it is an input or a tensor that the function keeps, or a view of one"
    base = node.meta.get("val")
    if not isinstance(base, torch.Tensor):
        return None, "its layout is not known"
    same = base.dtype == value.dtype and base.numel() == value.numel()
    if not (same and fills_its_memory(base) and value.storage_offset() == 0):
        return None, "it is a part of something larger, or has gaps"
    return node, ""
