"""Derivatives: a transformer layer's training step, a Jacobian, a Hessian, and their tracing."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import subjects
import torch
from child import run_child
from report import Row, Table, Target, at_most
from rounds import median_rows, rounds
from timing import Variant, waiting

from jaxtorch_bridge._compat.torch.dynamo import load
from jaxtorch_bridge.planner.op_keys import root_of_key
from jaxtorch_bridge.torchside.op import make_op

BATCH, SEQUENCE, WIDTH, HEADS, HIDDEN = 8, 128, 256, 4, 1024
JACOBIAN_SIZE = 64
HESSIAN_SIZE = 16

LOADED = ("torch._dynamo", "torch._functorch.aot_autograd")
LOADING = "loading the parts of torch that differentiate"
FIRST = "first trace and lowering of the process"
BOTH = "both"
AGAIN = "the same again, new jit"
ONE_THREAD, TRACING = "one thread", "tracing"  # what a child process measures
OTHER = "first trace of another such layer"


def measure() -> list[Table]:
    """One table each."""
    return [_training(), _training_on_one_thread(), _jacobian(), _hessian(), _tracing()]


class Layer:
    """A transformer layer with its loss, for torch and for JAX."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.TransformerEncoderLayer(
            WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True
        ).train()
        self.x = torch.randn(BATCH, SEQUENCE, WIDTH)
        self.y = torch.randn(BATCH, SEQUENCE, WIDTH)
        self.parameters = dict(self.module.named_parameters())
        self.tensors = {name: p.detach().clone() for name, p in self.parameters.items()}

    def loss(self, parameters: dict[str, Any], x: Any, y: Any) -> Any:
        """By parameters that come as a dict."""
        return ((torch.func.functional_call(self.module, parameters, (x,)) - y) ** 2).mean()

    def torch_step(self) -> Any:
        """As torch would be used: the module's own parameters, loss and gradients."""
        loss = ((self.module(self.x) - self.y) ** 2).mean()
        found = torch.autograd.grad(loss, list(self.parameters.values()))
        return loss.detach(), dict(zip(self.parameters, found, strict=True))

    def arrays(self) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        """Parameters, input and target as JAX arrays."""
        tree = {name: jnp.asarray(tensor.numpy()) for name, tensor in self.tensors.items()}
        return tree, jnp.asarray(self.x.numpy()), jnp.asarray(self.y.numpy())


TRAINING = (
    f"Training step: TransformerEncoderLayer({WIDTH}, {HEADS} heads, {HIDDEN}), "
    f"{BATCH} x {SEQUENCE}, value_and_grad by all parameters"
)
TRAINING_LIMITS = {"of torch eager's": 1.10, "of the peer's": 0.75}


def _training() -> Table:
    rows, note = median_rows(rounds(_steps(), seconds=40), TRAINING_LIMITS)
    return Table(TRAINING, "ms (median)", rows, [note, *subjects.peer_notes()])


def _training_on_one_thread() -> Table:
    """In CPU time, which others on the machine hardly change."""
    rows, note = median_rows(run_child(__file__, ONE_THREAD), TRAINING_LIMITS)
    title = f"{TRAINING}, CPU time with one torch thread"
    return Table(title, "ms (median)", rows, [note, *subjects.peer_notes()])


def _steps() -> dict[str, Variant]:
    layer = Layer()
    arrays = layer.arrays()
    variants: dict[str, Variant] = {subjects.TORCH: layer.torch_step}
    forms = {
        subjects.BRIDGE: subjects.bridge(layer.loss),
        subjects.PEER: subjects.peer(layer.loss, layer.tensors, layer.x, layer.y),  # type: ignore[arg-type]
    }
    for name, form in forms.items():
        if form is not None:
            step = jax.jit(jax.value_and_grad(form))
            subjects.check_same(layer.torch_step(), step(*arrays))
            variants[name] = waiting(step, *arrays)
    return variants


def _network() -> tuple[Callable[[Any], Any], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = JACOBIAN_SIZE
    w1, w2 = (torch.randn(size, size, generator=generator) / size**0.5 for _ in range(2))
    x = torch.randn(size, generator=generator)
    return lambda x: torch.tanh(w2 @ torch.tanh(w1 @ x)), x


def _jacobian() -> Table:
    function, x = _network()
    array = jnp.asarray(x.numpy())
    variants: dict[str, Variant] = {"torch.func.jacrev": lambda: torch.func.jacrev(function)(x)}
    forms = {subjects.BRIDGE: subjects.bridge(function), subjects.PEER: subjects.peer(function, x)}
    counts: list[str] = []
    for name, form in forms.items():
        if form is not None:
            with _replaced(make_op, "_entered", _counting_ops) as ran:
                jacobian = jax.jit(jax.jacrev(form))
                subjects.check_same(variants["torch.func.jacrev"](), jacobian(array))
                variants[name] = waiting(jacobian, array)
                if name == subjects.BRIDGE:
                    counts = [_calls_of(ran, variants[name])]
    rows, note = median_rows(rounds(variants, seconds=15), {"of the peer's": 0.1})
    title = f"Jacobian: jit(jacrev) of an MLP, {JACOBIAN_SIZE} inputs and outputs"
    return Table(title, "ms (median)", rows, [note, *counts, *subjects.peer_notes()])


def _hessian() -> Table:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(HESSIAN_SIZE, HESSIAN_SIZE, generator=generator)
    x = torch.randn(HESSIAN_SIZE, generator=generator)

    def function(x: Any) -> Any:
        return torch.logsumexp(torch.tanh(w @ x), 0) + (x**4).sum()

    array = jnp.asarray(x.numpy())
    reference = "torch.func.hessian"
    variants: dict[str, Variant] = {reference: lambda: torch.func.hessian(function)(x)}
    with _replaced(make_op, "_entered", _counting_ops) as ran:
        hessian = jax.jit(jax.hessian(subjects.bridge(function)))
        subjects.check_same(variants[reference](), hessian(array))
        variants[subjects.BRIDGE] = waiting(hessian, array)
        count = _calls_of(ran, variants[subjects.BRIDGE])
    rows, note = median_rows(rounds(variants, seconds=10), {}, {"of torch.func's": reference})
    title = f"Hessian: jit(hessian) of a scalar function of {HESSIAN_SIZE} inputs"
    return Table(title, "ms (median)", rows, [note, count])


def _tracing() -> Table:
    found = run_child(__file__, TRACING)
    loading, first = found["loading"], found["first"]
    both = {key: loading[key] + first[key] for key in loading}
    again, other = found["again"], found["other"]
    rows = [
        _trace_row(LOADING, loading),
        _trace_row(FIRST, first, at_most(first["ms"], 2000, "ms")),
        _trace_row(BOTH, both, at_most(both["CPU ms"], 2000, "CPU ms")),
        _trace_row(AGAIN, again, Target("no planning", again["fake tensor modes"] == 0)),
        _trace_row(OTHER, other, at_most(other["ms"], 2000, "ms")),
    ]
    notes = [
        "jit(value_and_grad(loss)).lower of the layer above, in a process of its own. Torch is",
        "planned under a fake tensor mode: where none was made, none was planned. Loading",
        "comes on top of the first trace of a process that differentiates: torch imports",
        "torch._dynamo, parts of torch._inductor and sympy with its fake tensors and its graph",
        "partitioner. Others on the machine change CPU time less than ms.",
    ]
    return Table("Tracing: transformer layer, forward and backward", "ms", rows, notes)


def _trace_row(label: str, facts: dict[str, float], *targets: Target) -> Row:
    beside = {key: facts[key] for key in ("CPU ms", "fake tensor modes")}
    return Row(label, facts["ms"], beside, list(targets))


def _child(what: str) -> dict[str, Any]:
    if what == ONE_THREAD:
        # Before any other thread meets torch: each asks for the number once.
        torch.set_num_threads(1)
        return rounds(_steps(), seconds=30, clock=time.process_time)
    return _trace()


def _trace() -> dict[str, Any]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    layer, other = Layer(), Layer()
    arrays = layer.arrays()
    # What JAX itself loads when it lowers for the first time is not counted.
    jax.jit(lambda x: x + 1).lower(arrays[1])

    def timed(work: Callable[[], object]) -> dict[str, float]:
        # Whatever is planned on torch's side is evaluated on fake tensors.
        with _replaced(FakeTensorMode, "__init__", _counting) as made:
            start, busy = time.perf_counter(), time.process_time()
            work()
            took, cost = time.perf_counter() - start, time.process_time() - busy
        return {"ms": took * 1e3, "CPU ms": cost * 1e3, "fake tensor modes": made["calls"]}

    def lowered(form: Callable[..., Any]) -> dict[str, float]:
        # A new function each time: JAX has traced nothing of it before.
        step = jax.jit(jax.value_and_grad(lambda *arguments: form(*arguments)))
        return timed(lambda: step.lower(*arrays))

    form = subjects.bridge(layer.loss)
    return {
        "loading": {**timed(lambda: [load(name) for name in LOADED]), "fake tensor modes": 0},
        "first": lowered(form),
        "again": lowered(form),
        "other": lowered(subjects.bridge(other.loss)),
    }


@contextlib.contextmanager
def _replaced(
    owner: Any, name: str, make: Callable[[Counter[str], Any], Any]
) -> Iterator[Counter[str]]:
    """Counts what ``make`` lets a replacement of an attribute count."""
    counts: Counter[str] = Counter()
    before = getattr(owner, name)
    setattr(owner, name, make(counts, before))
    try:
        yield counts
    finally:
        setattr(owner, name, before)


def _counting(counts: Counter[str], function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        counts["calls"] += 1
        return function(*args, **kwargs)

    return call


def _counting_ops(counts: Counter[str], enter: Any) -> Any:
    """Ops that are made now count how often torch is called, by what they derive from."""

    def entered(key: str, closure: Any, stateful: bool, *runs_and_rest: Any) -> Any:
        run, in_context, *rest = runs_and_rest
        what = key.removeprefix(root_of_key(key)).lstrip("/") or "function"
        # The handler calls one of the two.
        counted = (_counted(counts, what, run), _counted(counts, what, in_context))
        return enter(key, closure, stateful, *counted, *rest)

    return entered


def _counted(counts: Counter[str], what: str, run: Any) -> Any:
    def call(*tensors: Any) -> Any:
        counts[what] += 1
        return run(*tensors)

    return call


def _calls_of(counts: Counter[str], call: Variant) -> str:
    """What one more call makes torch do."""
    counts.clear()
    call()
    each = ", ".join(f"{count} x {label}" for label, count in sorted(counts.items()))
    return f"Torch calls in one {subjects.BRIDGE} call: {sum(counts.values())} ({each})."


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1])))
