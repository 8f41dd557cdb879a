"""Published architectures with random weights, called from JAX and compared with torch.

``make zoo`` runs all and writes docs/zoo.md. No weights are downloaded: transformers' models are
made small from their configurations, timm's are taken as they are.

    python zoo/run.py                  all
    python zoo/run.py bert llama       these
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from page import Row


def try_model(task: tuple[str, str]) -> Row:
    """One model in all ways; in a process that others share."""
    library, name = task
    row, began = Row(library, name), time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _try(row)
    except Exception as error:
        row.found.setdefault("made", _words(error))
    row.seconds = time.monotonic() - began
    return row


def _try(row: Row) -> None:
    import jax
    import torch

    from jaxtorch_bridge import from_module, jax_callable, t2j

    torch.set_num_threads(1)
    model, given = _made(row)
    arrays = {name: t2j(value.clone()) for name, value in given.items()}
    with torch.no_grad():
        want = _floats(model(**given))

    def attempt(way: str, run: Callable[[], str]) -> None:
        try:
            row.found[way] = run()
        except Exception as error:
            row.found[way] = _words(error)

    raw = jax_callable(model)
    attempt("called as it is", lambda: _compare(raw(**arrays), want))
    attempt("jit", lambda: _compare(jax.jit(raw)(**arrays), want))
    try:
        taken = from_module(model, names="flat")
    except Exception as error:
        row.found["from_module"] = _words(error)
        return

    def applied(params: Any, arrays: dict[str, Any]) -> Any:
        return taken.apply(params, **arrays)

    attempt("from_module", lambda: _compare(applied(taken.params, arrays), want))
    attempt("jit of it", lambda: _compare(jax.jit(applied)(taken.params, arrays), want))

    def loss(params: Any) -> Any:
        return sum((leaf**2).mean() for leaf in _floats(applied(params, arrays)))

    def gradients() -> str:
        model.zero_grad(set_to_none=True)
        try:
            sum((leaf**2).mean() for leaf in _floats(model(**given))).backward()
        except RuntimeError as error:
            return f"torch alone: {_words(error)}"
        wanted = {
            name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            for name, tensor in model.named_parameters()
            if tensor.requires_grad
        }
        _, found = jax.jit(jax.value_and_grad(loss))(taken.params)
        # Tied parameters are one leaf, under the first of their names.
        return _compare([found[name] for name in wanted], list(wanted.values()))

    attempt("value_and_grad", gradients)
    attempt("training", lambda: _train(model, given, arrays))


def _train(model: Any, given: Any, arrays: Any) -> str:
    """Where a model has running statistics: a call in training mode, and what becomes of them."""
    import copy

    import torch

    from jaxtorch_bridge import from_module

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return "-"
    other = copy.deepcopy(model).train()
    for part in other.modules():
        # Dropout, and what libraries call the dropping of whole paths.
        for name in ("p", "drop_prob", "drop_rate"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    # Copies, as torch's own run writes to what a program may still be reading.
    taken = from_module(other, names="flat", copy=True)
    result, buffers = taken.apply(taken.params, **arrays, buffers=taken.buffers)
    with torch.no_grad():
        want = _floats(other(**given))
    after = dict(other.named_buffers())
    verdict = _compare(result, want)
    names = [name for name, tensor in after.items() if tensor.is_floating_point()]
    if verdict != "right":
        return verdict
    return _compare([buffers[name] for name in names], [after[name] for name in names])


def _made(row: Row) -> tuple[Any, dict[str, Any]]:
    import torch

    if row.library == "transformers":
        import small_configurations

        model = small_configurations.make(row.name)
        return model, small_configurations.arguments(model)
    import torchvision_stand_in

    torchvision_stand_in.install()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(row.name, pretrained=False).eval()
    size = model.default_cfg["input_size"]
    return model, {"x": torch.randn(2, *size, generator=torch.Generator().manual_seed(1))}


def _floats(result: Any) -> list[Any]:
    """The arrays of floats in a result, of either side, in its own order."""
    import jax
    import torch

    from jaxtorch_bridge.calling.pytrees.trees import flatten

    return [
        leaf
        for leaf in flatten(result)[0]
        if (isinstance(leaf, torch.Tensor) and leaf.is_floating_point())
        or (isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating))
    ]


def _compare(result: Any, want: list[Any]) -> str:
    import numpy as np

    found = _floats(result)
    if len(found) != len(want):
        return f"{len(found)} results for {len(want)}"
    for one, other in zip(found, want, strict=True):
        a, b = np.asarray(one, np.float64), other.detach().double().numpy()
        if a.shape != b.shape:
            return f"shape {a.shape} for {b.shape}"
        gap = np.abs(a - b).max(initial=0.0)
        if not gap <= 1e-4 * max(np.abs(b).max(initial=0.0), 1e-3):
            return f"off by {gap:.1e} of {np.abs(b).max(initial=0.0):.1e}"
    return "right"


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "-v" in sys.argv:
        traceback.print_exception(error)
    return f"{type(error).__name__}: {text[:300]}"


def main() -> int:
    """Try the models, and write the page."""
    from architectures import TIMM, TRANSFORMERS
    from page import write_page

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-v", action="store_true")
    parser.add_argument("--page")
    options = parser.parse_args()
    tasks = [("transformers", name) for name in TRANSFORMERS] + [("timm", name) for name in TIMM]
    if options.names:
        tasks = [task for task in tasks if task[1] in options.names]
    rows = []
    # A process for few models each: what they compile is not given back.
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, maxtasksperchild=6) as pool:
        for row in pool.imap_unordered(try_model, tasks):
            rows.append(row)
            wrong = {way: word for way, word in row.found.items() if word not in ("right", "-")}
            print(f"{row.library}/{row.name} {row.seconds:.0f} s {wrong or 'right'}", flush=True)
    print(f"{sum(row.right for row in rows)} of {len(rows)} right")
    if options.page:
        write_page(rows, Path(options.page))
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
