"""The backends of a function beside each other, beside torch, torch.compile and JAX's own code.

Each model in a process of its own. ``xla`` is what this family is about: the others are measured by
`models` as well.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import subjects
import torch
from child import run_child
from report import Row, Table, Target, at_most
from rounds import median_rows, rounds
from timing import Variant, fastest, waiting

from jaxtorch_bridge import from_module, jax_callable, t2j

SECONDS = 12
CHAIN = 200
BACKENDS = ("eager", "graph", "compile", "xla")
TWIN = "jax.numpy"
COMPILED = "torch.compile"
DEVICES = "devices"
_FLAG = "--xla_force_host_platform_device_count=2"


def measure() -> list[Table]:
    """A chain of small operations, throughput of two devices, models, and planning."""
    tables = [_chain_table(), _device_table()]
    rows, plans = [], []
    for name in CASES:
        found = run_child(__file__, name)
        rows += _model_rows(name, found["times"])
        for what, seconds in found["planning"].items():
            plans.append(Row(f"{name}: {what}", seconds))
    note = "torch.compile as it is by default (Inductor)."
    return [
        *tables,
        Table("Backends, jit(value_and_grad) by all parameters", "ms (median)", rows, [note]),
        Table("Backend xla, first call, beside JAX's own", "s", plans),
    ]


def _model_rows(name: str, times: dict[str, list[float]]) -> list[Row]:
    others = {"of torch eager's": subjects.TORCH, "of JAX's own": TWIN}
    found, _ = median_rows(times, {}, others)
    rows = []
    for row in found:
        targets = []
        if row.name == "xla" and "of JAX's own" in row.beside:
            targets = [at_most(row.beside["of JAX's own"], 1.15, "of JAX's own")]
        rows.append(Row(f"{name}: {row.name}", row.value, row.beside, targets))
    return rows


# ---- A chain of pointwise operations ---------------------------------------------------------


def _chain(x: Any) -> Any:
    for number in range(CHAIN // 4):
        x = torch.tanh(x * 1.01 + 0.1 * number) - x
    return x


def _chain_twin(x: Any) -> Any:
    for number in range(CHAIN // 4):
        x = jnp.tanh(x * 1.01 + 0.1 * number) - x
    return x


def _chain_input() -> Any:
    return jnp.asarray(np.random.default_rng(0).standard_normal((1, 64)), jnp.float32)


def _chain_table() -> Table:
    x = _chain_input()
    tensor = torch.from_numpy(np.array(x))
    variants: dict[str, Variant] = {
        subjects.TORCH: lambda: _chain(tensor),
        TWIN: waiting(jax.jit(_chain_twin), x),
    }
    for name in BACKENDS:
        call = jax.jit(jax_callable(_chain, backend=name))
        subjects.check_same(_chain(tensor), call(x))
        variants[name] = waiting(call, x)
    times = fastest(variants, seconds=SECONDS)
    rows = []
    for name, value in times.items():
        beside = {"of JAX's own": value / times[TWIN]}
        targets = []
        if name == "xla":
            gain = times["eager"] / value
            targets = [
                at_most(beside["of JAX's own"], 1.15, "of JAX's own"),
                Target(f"{gain:.1f} times as fast as eager, at least 5", gain >= 5),
            ]
        rows.append(Row(name, value, beside, targets))
    return Table(f"{CHAIN} pointwise operations on (1, 64), jitted", "us (least)", rows)


def _device_table() -> Table:
    found = run_child(__file__, DEVICES, env={"XLA_FLAGS": _FLAG})
    rows = []
    for name, rates in found.items():
        gain = rates["two"] / rates["one"]
        targets = [Target("of one device >= 1.8", gain >= 1.8)] if name == "xla" else []
        rows.append(Row(name, rates["two"], {"of one device": gain}, targets))
    title = f"2 host devices, {CHAIN} pointwise operations on (1, 64), a thread for each device"
    return Table(title, "calls a second", rows)


def _devices() -> dict[str, dict[str, float]]:
    x = _chain_input()
    found: dict[str, dict[str, float]] = {}
    for name in ("eager", "xla", TWIN):
        form = _chain_twin if name == TWIN else jax_callable(_chain, backend=name)
        calls = []
        for device in jax.devices():
            call, given = jax.jit(form), jax.device_put(x, device)
            jax.block_until_ready(call(given))
            calls.append(waiting(call, given))
        rates: dict[str, list[float]] = {"one": [], "two": []}
        for _ in range(5):
            rates["one"].append(_rate(calls[:1]))
            rates["two"].append(_rate(calls))
        found[name] = {word: max(each) for word, each in rates.items()}
    return found


def _rate(calls: list[Variant]) -> float:
    """Calls a second, of all together, one thread each."""
    counts = [0] * len(calls)
    end = time.perf_counter() + 0.5

    def work(place: int) -> None:
        while time.perf_counter() < end:
            for _ in range(20):
                calls[place]()
            counts[place] += 20

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(calls))]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


# ---- Models ----------------------------------------------------------------------------------

Loss = Callable[..., Any]


def _mlp() -> tuple[Loss, dict[str, torch.Tensor], tuple[torch.Tensor, ...], Loss | None]:
    sizes = (256, 512, 512, 64)
    parameters = {
        f"{kind}{number}": torch.randn(*shape) / size**0.5
        for number, (size, after) in enumerate(itertools.pairwise(sizes))
        for kind, shape in (("w", (size, after)), ("b", (after,)))
    }

    def loss(parameters: Any, x: Any) -> Any:
        for number in range(3):
            x = x @ parameters[f"w{number}"] + parameters[f"b{number}"]
            x = torch.nn.functional.gelu(x) if number < 2 else x
        return x.square().mean()

    def twin(parameters: Any, x: Any) -> Any:
        for number in range(3):
            x = x @ parameters[f"w{number}"] + parameters[f"b{number}"]
            x = jax.nn.gelu(x, approximate=False) if number < 2 else x
        return jnp.square(x).mean()

    return loss, parameters, (torch.randn(128, 256),), twin


def _layer() -> tuple[Loss, dict[str, torch.Tensor], tuple[torch.Tensor, ...], Loss | None]:
    """A transformer's layer, norm first: batch 4, 128 tokens, width 256, 8 heads."""
    width, heads = 256, 8
    shapes = {"qkv": (width, 3 * width), "out": (width, width)}
    shapes |= {"up": (width, 4 * width), "down": (4 * width, width)}
    parameters = {name: torch.randn(*shape) / shape[0] ** 0.5 for name, shape in shapes.items()}
    parameters |= {f"scale{number}": torch.ones(width) for number in range(2)}

    def loss(p: Any, x: Any) -> Any:
        functional = torch.nn.functional
        y = functional.layer_norm(x, (width,), p["scale0"])
        q, k, v = (y @ p["qkv"]).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + mixed.transpose(1, 2).flatten(2) @ p["out"]
        y = functional.layer_norm(x, (width,), p["scale1"])
        x = x + functional.gelu(y @ p["up"]) @ p["down"]
        return x.square().mean()

    def norm(x: Any, scale: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale

    def twin(p: Any, x: Any) -> Any:
        y = norm(x, p["scale0"])
        q, k, v = jnp.split((y @ p["qkv"]).reshape(*x.shape[:2], 3 * heads, -1), 3, axis=2)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), v)
        x = x + mixed.reshape(x.shape) @ p["out"]
        y = norm(x, p["scale1"])
        x = x + jax.nn.gelu(y @ p["up"], approximate=False) @ p["down"]
        return jnp.square(x).mean()

    return loss, parameters, (torch.randn(4, 128, width),), twin


def _of_models(name: str) -> Callable[[], Any]:
    def build() -> Any:
        import model_cases
        from models import WithLoss

        case = model_cases.build(name)
        return WithLoss(case), None, tuple(case.inputs), None

    return build


CASES: dict[str, Callable[[], Any]] = {
    "MLP": _mlp,
    "transformer layer": _layer,
    "ResNet-18 in training": _of_models("ResNet-18 in training"),
    "BERT (MiniLM)": _of_models("MiniLM"),
}


def _model(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    loss, parameters, inputs, twin = CASES[name]()
    if parameters is None:
        in_torch, arrays, forms = _module(loss, inputs)
    else:
        in_torch, arrays, forms = _function(loss, parameters, inputs)
    if twin is not None:
        forms[TWIN] = twin
    variants: dict[str, Variant] = {subjects.TORCH: in_torch(loss)}
    given = tuple(t2j(one) for one in inputs)
    want = variants[subjects.TORCH]()[0]
    planning = {}
    try:
        compiled = in_torch(torch.compile(loss))
        compiled()
        variants[COMPILED] = compiled
    except Exception as error:  # whatever its compiler raises
        print(f"{name}, {COMPILED}: {type(error).__name__}: {error}"[:500], file=sys.stderr)
    for word, form in forms.items():
        program = jax.jit(jax.value_and_grad(form))
        begin = time.perf_counter()
        try:
            lowered = program.lower(arrays, *given)
            middle = time.perf_counter()
            runs = lowered.compile()
            end = time.perf_counter()
            found = jax.block_until_ready(runs(arrays, *given))
        except Exception as error:
            print(f"{name}, {word}: {type(error).__name__}: {error}"[:500], file=sys.stderr)
            continue
        if word in ("xla", TWIN):
            planning[f"{word}, planning and lowering"] = middle - begin
            planning[f"{word}, XLA's compilation"] = end - middle
        subjects.check_same(want, found[0])
        variants[word] = waiting(program, arrays, *given)
    return {"times": rounds(variants, seconds=SECONDS), "planning": planning}


def _function(loss: Loss, parameters: dict[str, torch.Tensor], inputs: Any) -> Any:
    """Torch's gradient of a form of it, its parameters as arrays, and its forms in JAX."""
    tensors = {key: one.clone().requires_grad_() for key, one in parameters.items()}

    def in_torch(form: Loss) -> Variant:
        return _gradient(lambda: form(tensors, *inputs), list(tensors.values()))

    arrays = {key: t2j(one.clone()) for key, one in parameters.items()}
    return in_torch, arrays, {one: jax_callable(loss, backend=one) for one in BACKENDS}


def _module(module: Any, inputs: Any) -> Any:
    """The same of a module, whose buffers change."""

    def in_torch(form: Any) -> Variant:
        return _gradient(lambda: form(*inputs), list(module.parameters()))

    taken = from_module(module, copy=True)

    def form(backend: Any) -> Loss:
        chosen = taken.with_backend(backend)
        return lambda params, *xs: chosen(params, *xs, buffers=chosen.buffers)[0]

    return in_torch, taken.params, {one: form(one) for one in BACKENDS}


def _gradient(loss: Callable[[], torch.Tensor], leaves: list[torch.Tensor]) -> Variant:
    def call() -> Any:
        value = loss()
        return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True)

    return call


if __name__ == "__main__":
    asked = sys.argv[1]
    print(json.dumps(_devices() if asked == DEVICES else _model(asked)))
