"""Models as people have them: forward, gradients and a training step, beside torch and the peer.

Each in a process of its own, for the time of its first trace and for its peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import model_cases
import optax
import subjects
import torch
from child import reset_peak, resident_mib, run_child
from report import Row, Table, at_most
from rounds import median_rows, rounds
from timing import Variant, waiting

from jaxtorch_bridge import from_module, t2j

SECONDS = 12
RATE = 1e-4
FORWARD, GRADIENT, STEP = "forward", "value_and_grad", "step"
TITLES = {
    FORWARD: "Models, jitted forward (loss)",
    GRADIENT: "Models, jit(value_and_grad) by all parameters, or by the inputs",
    STEP: "Models, training step through from_module with SGD",
}
LIMITS = {FORWARD: 1.05, GRADIENT: 1.10, STEP: 1.10}
# What a jitted call costs whatever the model, in ms, which the forward's limit leaves room for.
CALL_MS = 0.06


def measure() -> list[Table]:
    """Three tables of times, one of first traces, one of peak memory."""
    rows: dict[str, list[Row]] = {title: [] for title in TITLES.values()}
    traces, memory = [], []
    for name in model_cases.CASES:
        found = run_child(__file__, name)
        for kind, title in TITLES.items():
            if kind in found["times"]:
                rows[title] += _rows(name, kind, found["times"][kind])
        traces += [Row(f"{name}: {kind}", value) for kind, value in found["traces"].items()]
        memory.append(_memory_row(name, found["memory"]))
    return [
        *(Table(title, "ms (median)", found) for title, found in rows.items()),
        Table("Models, first trace and compilation", "s", traces),
        Table(
            "Models, growth of peak memory in value_and_grad",
            "MiB",
            memory,
            subjects.peer_notes(),
        ),
    ]


def _rows(name: str, kind: str, times: dict[str, list[float]]) -> list[Row]:
    found, _ = median_rows(times, {})
    rows = []
    for row in found:
        targets = []
        if row.name == subjects.BRIDGE:
            ratio = row.beside["of torch eager's"]
            if kind == FORWARD:
                torch_ms = row.value / ratio
                ratio = max(0.0, row.value - CALL_MS) / torch_ms
            targets = [at_most(ratio, LIMITS[kind], "of torch eager's")]
        rows.append(Row(f"{name}: {row.name}", row.value, row.beside, targets))
    return rows


def _memory_row(name: str, memory: dict[str, float]) -> Row:
    mine, theirs = memory[subjects.BRIDGE], memory[subjects.TORCH]
    ratio = mine / max(theirs, 1.0)
    targets = [at_most(ratio, 1.15, "of torch eager's")] if theirs >= 1.0 else []
    return Row(name, mine, {"torch eager": theirs, "of torch eager's": ratio}, targets)


def _arrays(case: model_cases.Case) -> tuple[dict[str, Any], tuple[Any, ...]]:
    parameters = {} if case.module is None else dict(case.module.named_parameters())
    # Copies: what torch trains must not change what JAX reads.
    return (
        {name: t2j(tensor.detach().clone()) for name, tensor in parameters.items()},
        tuple(t2j(tensor.clone()) for tensor in case.inputs),
    )


def _in_torch(case: model_cases.Case) -> dict[str, Variant]:
    leaves = (
        [case.inputs[index].requires_grad_() for index in case.moving]
        if case.module is None
        else list(case.module.parameters())
    )

    def forward() -> Any:
        with torch.no_grad():
            return case.plain()

    def gradient() -> Any:
        loss = case.plain()
        return loss.detach(), torch.autograd.grad(loss, leaves, allow_unused=True)

    return {FORWARD: forward, GRADIENT: gradient}


def _programs(case: model_cases.Case, form: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    by: Any = 0
    if case.module is None:
        by = tuple(1 + index for index in case.moving)
    return {FORWARD: jax.jit(form), GRADIENT: jax.jit(jax.value_and_grad(form, by))}


def _child(name: str) -> dict[str, Any]:
    case = model_cases.build(name)
    parameters, inputs = _arrays(case)
    in_torch = _in_torch(case)
    forms = {
        subjects.BRIDGE: subjects.bridge(case.with_parameters),
        subjects.PEER: _peer(case),
    }
    traces: dict[str, float] = {}
    variants: dict[str, dict[str, Variant]] = {
        kind: {subjects.TORCH: call} for kind, call in in_torch.items()
    }
    memory = {subjects.TORCH: _growth(in_torch[GRADIENT])}
    for who, form in forms.items():
        if form is None:
            continue
        for kind, program in _programs(case, form).items():
            start = time.perf_counter()
            try:
                found = jax.block_until_ready(program(parameters, *inputs))
            except Exception as error:
                print(
                    f"{name}, {who}, {kind}: {type(error).__name__}: {error}"[:500], file=sys.stderr
                )
                continue
            if who == subjects.BRIDGE:
                traces[kind] = time.perf_counter() - start
                loss = found if kind == FORWARD else found[0]
                subjects.check_same(in_torch[FORWARD](), loss)
            variants[kind][who] = waiting(program, parameters, *inputs)
    memory[subjects.BRIDGE] = _growth(variants[GRADIENT][subjects.BRIDGE])
    times = {kind: rounds(found, seconds=SECONDS) for kind, found in variants.items()}
    if case.module is not None:
        times[STEP] = rounds(_steps(case), seconds=SECONDS)
    return {"times": times, "traces": traces, "memory": memory}


def _peer(case: model_cases.Case) -> Callable[..., Any] | None:
    parameters = {} if case.module is None else dict(case.module.named_parameters())
    examples = {name: tensor.detach() for name, tensor in parameters.items()}
    try:
        return subjects.peer(case.with_parameters, examples, *case.inputs)  # type: ignore[arg-type]
    except Exception as error:
        print(f"{subjects.PEER}: {type(error).__name__}: {error}"[:500], file=sys.stderr)
        return None


def _growth(call: Variant) -> float:
    """Of the peak in a call, in MiB; the second of two, which loads nothing any more."""
    call()
    reset_peak()
    before = resident_mib()
    call()
    return resident_mib("VmHWM") - before


class WithLoss(torch.nn.Module):
    """A module that gives its loss."""

    def __init__(self, case: model_cases.Case) -> None:
        super().__init__()
        self.module = case.module
        self.loss_of = case.loss_of

    def forward(self, *inputs: Any) -> torch.Tensor:
        """The scalar."""
        assert self.module is not None
        return self.loss_of(self.module(*inputs), *inputs)


def _steps(case: model_cases.Case) -> dict[str, Variant]:
    assert case.module is not None
    module = WithLoss(case)
    net = from_module(module, copy=True)
    sgd = torch.optim.SGD(module.parameters(), RATE)
    optimizer = optax.sgd(RATE)
    _, inputs = _arrays(case)

    def in_torch() -> Any:
        sgd.zero_grad()
        loss = module(*case.inputs)
        loss.backward()
        sgd.step()
        return loss.detach()

    def step(params: Any, buffers: Any, state: Any, *inputs: Any) -> Any:
        def loss(params: Any) -> Any:
            return net.apply(params, *inputs, buffers=buffers)

        (value, buffers), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), buffers, state, value

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    held = [net.params, net.buffers, optimizer.init(net.params)]

    def in_jax() -> Any:
        *held[:], value = jitted(*held, *inputs)
        return jax.block_until_ready(value)

    subjects.check_same(in_torch(), in_jax())
    return {subjects.TORCH: in_torch, subjects.BRIDGE: in_jax}


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1])))
