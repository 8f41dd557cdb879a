"""The figures of a GPU: ``python benchmarks/gpu.py``, offline, with the machine's own Python.

Needs what ``make gpu-check`` needs, whose build it uses, and ``rich``. Where ``wrap-torch2jax`` can
be imported, its rows are there too.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import subjects
import torch
from report import ABOVE_NOOP, Row, Table, ratios, show
from rich.console import Console
from rounds import median_rows, rounds
from timing import Variant, fastest

from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.handler.cuda_streams import enter_stream, leave_stream

LARGE = (8192, 8192)
BATCH, SEQUENCE, WIDTH, HEADS, HIDDEN = 16, 512, 1024, 16, 4096
GIB = 2**28  # float32 values
RECORDED, REPLAY = "bridge, recorded by XLA", "torch's own graph, replayed"


def add(a: Any, b: Any) -> Any:
    return a + b


def main() -> int:
    """Print every table; 1 if one could not be made."""
    if not torch.cuda.is_available() or jax.default_backend() != "gpu":
        print("benchmarks/gpu.py needs a GPU that both JAX and torch see")
        return 1
    console = Console(width=110)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch")}
    facts = {"python": platform.python_version(), **versions, "cuda": torch.version.cuda}
    console.print(torch.cuda.get_device_name(), facts, "\n")
    failed = False
    for make in (_small, _parts, _large, _training, _memory):
        try:
            show(make(), console)
        except Exception:
            failed = True
            traceback.print_exc()
    return int(failed)


def _settled(result: Any) -> Any:
    jax.block_until_ready(result)
    torch.cuda.synchronize()
    return result


def _waiting(call: Callable[..., Any], *arguments: Any) -> Variant:
    return lambda: _settled(call(*arguments))


def _forms(function: Callable[..., Any], *tensors: torch.Tensor) -> dict[str, Any]:
    forms = {
        subjects.BRIDGE: subjects.bridge(function),
        subjects.PEER: subjects.peer(function, *tensors),
    }
    return {name: form for name, form in forms.items() if form is not None}


def _arrays(shape: tuple[int, ...]) -> tuple[tuple[jax.Array, ...], tuple[torch.Tensor, ...]]:
    values = [np.random.default_rng(seed).random(shape, np.float32) for seed in range(2)]
    return tuple(map(jnp.asarray, values)), tuple(torch.from_numpy(v).cuda() for v in values)


def _small() -> Table:
    shape = (10, 2)
    arrays, tensors = _arrays(shape)
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    forms = _forms(add, *tensors) | {subjects.XLA: add}
    forms[RECORDED] = jax_callable(add, backend="graph", cuda_graph=True)
    forms[subjects.CALLBACK] = subjects.callback(lambda a, b: (a + b).cpu(), result)
    noop = jax.jit(subjects.noop(result))
    variants: dict[str, Variant] = {
        subjects.TORCH: _waiting(add, *tensors),
        subjects.NOOP: _waiting(noop, *arrays),
        REPLAY: _waiting(_replay(*tensors)),
    }
    for name, form in forms.items():
        jitted = jax.jit(form)
        subjects.check_same(np.asarray(arrays[0]) + np.asarray(arrays[1]), jitted(*arrays))
        variants[name] = _waiting(jitted, *arrays)
    times = fastest(variants, seconds=8)
    queued = fastest(
        {
            subjects.NOOP: partial(noop, *arrays),
            **{
                name: partial(jax.jit(form), *arrays)
                for name, form in forms.items()
                if name != subjects.CALLBACK
            },
        },
        seconds=8,
        wait=_settled,
    )
    rows = []
    for name, value in times.items():
        beside = {} if name == subjects.TORCH else {ABOVE_NOOP: value - times[subjects.NOOP]}
        if name in queued:
            beside["queued, us"] = queued[name]
        if name == RECORDED:
            beside["of a replay's"] = value / times[REPLAY]
        rows.append(Row(name, value, beside | ratios(name, times, subjects.OTHERS)))
    explained = forms[RECORDED].explain(*arrays).splitlines()
    notes = [next(line for line in explained if line.startswith("cuda graph"))]
    notes += ["'queued': the time of a call where only the last of some hundred is waited for."]
    return Table(
        f"Call: jitted a + b, {shape}, waited for", "us (min)", rows, notes + subjects.peer_notes()
    )


def _replay(*tensors: torch.Tensor) -> Callable[[], None]:
    """What is left of a call if torch records it itself: no Python code, and no copies."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add(*tensors)
    return graph.replay


def _parts() -> Table:
    """What a call of ``a + b`` is made of on the host."""
    arrays, tensors = _arrays((10, 2))
    target = torch.empty((10, 2), device="cuda")
    stream = torch.cuda.Stream()

    def cross() -> None:
        leave_stream(enter_stream(stream.cuda_stream, 0))

    parts: dict[str, Variant] = {
        "torch's add": partial(add, *tensors),
        "torch's add, out=": partial(torch.add, *tensors, out=target),
        "torch's copy of the result": partial(target.copy_, tensors[0]),
        "to XLA's stream and back": cross,
        "a tensor over an array, by torch.from_dlpack": partial(torch.from_dlpack, arrays[0]),
        "an eager call, waited for": _waiting(subjects.bridge(add), *arrays),
    }
    times = fastest(parts, seconds=5, wait=_settled)
    rows = [Row(name, value) for name, value in times.items()]
    return Table("Parts of a call of a + b, (10, 2), queued", "us (min)", rows)


def _large() -> Table:
    arrays, tensors = _arrays(LARGE)
    variants: dict[str, Variant] = {subjects.TORCH: _waiting(add, *tensors)}
    for name, form in (_forms(add, *tensors) | {subjects.XLA: add}).items():
        variants[name] = _waiting(jax.jit(form), *arrays)
    times = fastest(variants, seconds=6)
    rows = [Row(name, value, ratios(name, times, subjects.OTHERS)) for name, value in times.items()]
    plan = subjects.bridge(add).explain(*arrays).splitlines()
    notes = [" ".join(line.split()) for line in plan if line.startswith("outputs")]
    title = f"Size: jitted a + b, {LARGE}"
    return Table(title, "us (min)", rows, [*notes, *subjects.peer_notes()])


def _training() -> Table:
    torch.manual_seed(0)
    module = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, device="cuda"
    ).train()
    x, y = (torch.randn(BATCH, SEQUENCE, WIDTH, device="cuda") for _ in range(2))
    parameters = dict(module.named_parameters())
    tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def loss(parameters: dict[str, Any], x: Any, y: Any) -> Any:
        return ((torch.func.functional_call(module, parameters, (x,)) - y) ** 2).mean()

    def torch_step() -> Any:
        value = ((module(x) - y) ** 2).mean()
        found = torch.autograd.grad(value, list(parameters.values()))
        return value.detach(), found

    arrays = jax.tree.map(lambda tensor: jnp.asarray(tensor.cpu().numpy()), (tensors, x, y))
    variants: dict[str, Variant] = {subjects.TORCH: _waiting(torch_step)}
    for name, form in _forms(loss, tensors, x, y).items():  # type: ignore[arg-type]
        step = jax.jit(jax.value_and_grad(form))
        value, gradients = step(*arrays)
        expected, wanted = torch_step()
        np.testing.assert_allclose(value, expected.cpu(), rtol=1e-4)
        for key, gradient in zip(parameters, wanted, strict=True):
            np.testing.assert_allclose(gradients[key], gradient.cpu(), rtol=2e-2, atol=1e-5)
        variants[name] = _waiting(step, *arrays)
    rows, note = median_rows(rounds(variants, seconds=10), {})
    title = (
        f"Training step: TransformerEncoderLayer({WIDTH}, {HEADS} heads, {HIDDEN}), "
        f"{BATCH} x {SEQUENCE}, float32, value_and_grad by all parameters"
    )
    return Table(title, "ms (median)", rows, [note, *subjects.peer_notes()])


def _memory() -> Table:
    device = jax.devices()[0]
    x = jnp.ones(GIB)
    rows = []
    for name, form in _forms(lambda x: x.sum(), torch.ones(8, device="cuda")).items():
        jitted = jax.jit(form)
        _settled(x)
        torch.cuda.reset_peak_memory_stats()
        held, before = torch.cuda.memory_allocated(), device.memory_stats()["bytes_in_use"]
        assert float(_settled(jitted(x))) == GIB
        grown = torch.cuda.max_memory_allocated() - held
        kept = device.memory_stats()["bytes_in_use"] - before
        rows.append(Row(name, grown / 2**20, {"JAX's, kept": kept / 2**20}))
    return Table("Memory: a jitted sum of 1 GiB, planning included", "torch's peak, MiB", rows)


if __name__ == "__main__":
    sys.exit(main())
