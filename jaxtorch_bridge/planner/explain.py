"""A plan as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .plan import CallPlan

VMAP_WORDS = {
    "torch_vmap": "one call by torch.vmap, one call an element where it cannot",
    "sequential": "one call an element, in a loop",
    "sequential_unrolled": "one call an element, written one after the other",
    "expand_dims": "one call of the function as it stands; others get an axis of size 1",
    "broadcast_all": "one call of the function as it stands; others are repeated",
}

BACKEND_WORDS = {
    "eager": "the function's own code",
    "graph": "a graph captured by planning; the function's Python code does not run in calls",
    "compile": "torch.compile of the graph captured by planning; a gradient records the function "
    "compiled with its backward",
    "xla": "JAX operations, made of the graphs of its calls and derivatives",
}

# By whether the function's own code runs.
MUTATES_WORDS = {
    True: "donate it, and the new value is the same memory; derivatives and batches work on copies",
    False: "the graph works on a copy, and so do derivatives and batches",
}

COPIES_WORDS = "the function gets a copy of its own, and what it writes there is lost"


def explain_plan(
    plan: CallPlan,
    derivatives: Iterable[str] = (),
    batches: Iterable[str] = (),
    shards: Iterable[str] = (),
    notes: Iterable[str] = (),
    results: Sequence[str] = (),
    operations: Iterable[str] = (),
    streams: str = "",
    recording: str = "",
) -> str:
    """The plan, one decision a line, and why the better choice was not taken.

    Args:
        plan: What to explain.
        derivatives: Lines on the derivatives that have been built so far.
        batches: Lines on the batched forms that have been built so far.
        shards: Lines on how the call is cut; the plan is that of one shard.
        notes: What the contract asks for that has no effect.
        results: For each output, how it gets into XLA's buffer.
        operations: Lines on what XLA runs itself.
        streams: On a GPU, how a call is ordered with what others do there.
        recording: What became of ``cuda_graph: true``.
    """
    lines = [f"{plan.label}  (op key {plan.key})"]
    if plan.source:
        lines.append(f"contract     {plan.source}")
    lines += _table("inputs", [(sig.path, _input_words(sig)) for sig in plan.inputs])
    lines += _table("static", plan.static)
    results = results or [""] * len(plan.outputs)
    lines += _table(
        "outputs",
        [
            (sig.path, f"{sig}, {how}" if how else str(sig))
            for sig, how in zip(plan.outputs, results, strict=True)
        ],
    )
    if plan.sizes:
        lines.append("sizes        " + ", ".join(f"{name}={size}" for name, size in plan.sizes))
    if plan.context:
        lines.append("context      " + ", ".join(f"{name}={text}" for name, text in plan.context))
    lines += [f"bound        {words}" for words in plan.bounds]
    lines.append(f"found by     {plan.inference.words}")
    lines += [f"             not {failure}" for failure in plan.inference.failures]
    lines.append(f"extra runs   {plan.inference.extra_runs} of the torch function")
    if plan.random_key is not None:
        lines.append(f"random       {_key_words(plan)}")
    elif plan.inference.random:
        draws = plan.inference.live_draws or "may draw from torch's generator"
        lines.append(f"random       {draws}: XLA may merge two equal calls into one")
    if plan.inference.updates_state:
        lines.append("state        writes to tensors that it closes over, as in plain torch")
    if plan.mutates:
        names = ", ".join(f"`{name}`" for name in plan.mutates)
        lines.append(f"mutates      {names}: {MUTATES_WORDS[plan.backend == 'eager']}")
    if plan.copies:
        names = ", ".join(f"`{name}`" for name in plan.copies)
        lines.append(f"copies       {names}: {COPIES_WORDS}")
    if plan.backend != "eager":
        lines.append(f"backend      {plan.backend}: {BACKEND_WORDS[plan.backend]}")
        lines += [f"             {line}" for line in operations]
    lines.append(f"concurrency  {plan.concurrency}")
    lines += [f"streams      {streams}"] if streams else []
    lines += [f"cuda graph   {recording}"] if recording else []
    lines.append(f"gradient     {plan.derivative}")
    lines += [f"             {line}" for line in derivatives]
    batches = list(batches)
    if batches or plan.vmap_method != "torch_vmap":
        lines.append(f"vmap         {plan.vmap_method}: {VMAP_WORDS[plan.vmap_method]}")
    lines += [f"             batch of {line}" for line in batches]
    lines += [f"sharding     {line}" for line in shards]
    lines += [f"note         {note}" for note in notes]
    return "\n".join(lines)


def _key_words(plan: CallPlan) -> str:
    key = f"a key as `rng` ({plan.random_key})"
    words = f"{key} seeds torch's generators for the call"
    if plan.backend == "xla":
        words = f"by {key}: other numbers than torch's, of the same distributions"
    return words if plan.may_draw else f"{words}; it was seen to draw nothing"


def _input_words(sig: object) -> str:
    return str(sig) if getattr(sig, "differentiable", True) else f"{sig}, not differentiable"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    if not rows:
        return []
    width = max(len(path) for path, _ in rows)
    return [
        # 13 characters: as wide as the words before all other lines.
        f"{title if index == 0 else '':<13}{path:<{width}}  {text}"
        for index, (path, text) in enumerate(rows)
    ]
