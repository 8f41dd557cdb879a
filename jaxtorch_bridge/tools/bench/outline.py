"""Times of a contract's function by every backend, as plain data."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ...calling.jax_callable import JaxCallable
from ...choices import Backend
from ...errors import BridgeError, BridgeWarning
from ..check.both_sides import Run, run_of
from ..check.cases import Case
from ..check.named_function import Subject
from ..plan.asked_call import function_of
from ..plan.outline import operations_of
from ..plan.request import RequestError, case_of, contract_named
from .rounds import Times, timed
from .subjects import Call, Timed

BACKENDS: tuple[Backend, ...] = ("eager", "graph", "compile", "xla")
# What a backend must gain before the contract should name it.
_WORTH_NAMING = 0.95

# Is given what is being done, and how much of it is done.
Told = Callable[[str, float], None]


def bench_named(
    name: str,
    shape: Sequence[str],
    *,
    static: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    without: Sequence[str] = (),
    backends: Sequence[str] = BACKENDS,
    seconds: float = 5.0,
    told: Told = lambda what, share: None,
) -> dict[str, Any]:
    """Time a contract's function on made-up values; see `case_of` and `function_of`.

    Args:
        name: The contract.
        shape: Sizes.
        static: Static arguments.
        dtypes: Of inputs that may have several.
        without: Optional inputs to leave out.
        backends: What to time beside torch.
        seconds: For each of the two tables.
        told: Hears how far it is.

    Raises:
        RequestError: The texts do not fit the contract, or there is no such backend.
        SpecError: There is no such contract, or it does not fit its function.
        BridgeError: Torch's own function fails on made-up values.
    """
    unknown = [one for one in backends if one not in BACKENDS]
    if unknown:
        known = ", ".join(BACKENDS)
        raise RequestError(f"--backends: expected some of {known}; got {unknown[0]!r}")
    spec = contract_named(name)
    case = case_of(spec, shape, static=static, dtypes=dtypes, without=without)
    with function_of(spec) as subject, warnings.catch_warnings():
        warnings.simplefilter("ignore", BridgeWarning)
        return _bench(subject, case, backends, seconds, told)


def _bench(
    subject: Subject, case: Case, backends: Sequence[str], seconds: float, told: Told
) -> dict[str, Any]:
    run = run_of(subject, case)
    try:
        call = Timed(run)
    except Exception as error:  # whatever the function raises on made-up values
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BridgeError(
            f"{subject.spec.label}: expected a function that runs on made-up values (normal "
            f"numbers, and integers below every size); it raised {text}. Time it in a script of "
            "your own, with values that fit."
        ) from error
    rows: dict[str, dict[str, Any]] = {"torch": {"backend": "torch"}}
    forward: dict[str, Call] = {"torch": call.torch_forward()}
    gradient: dict[str, Call] = {"torch": call.torch_gradient()} if call.has_gradient else {}
    for number, name in enumerate(backends):
        told(f"compiling {name}", number / len(backends))
        row = rows[name] = {"backend": name}
        _prepare(row, name, run, call, forward, gradient)
    told("compiling", 1.0)
    for word, calls in (("forward", forward), ("gradient", gradient)):
        if calls:
            hear = functools.partial(told, f"timing {word}")
            _enter(rows, word, timed(calls, seconds=seconds, told=hear))
    return {
        "contract": subject.spec.label,
        "source": subject.spec.where(""),
        "function": subject.spec.function,
        "sizes": dict(case.sizes),
        "platform": jax.default_backend(),
        "rows": list(rows.values()),
        "advice": _advice(subject, list(rows.values())),
    }


def _prepare(
    row: dict[str, Any],
    name: Any,
    run: Run,
    timed_call: Timed,
    forward: dict[str, Call],
    gradient: dict[str, Call],
) -> None:
    """Compile, and say how long it took; a backend that cannot run the function says why."""
    try:
        callable_: JaxCallable[..., Any] = run.subject.callable.with_backend(name)
        begin = time.perf_counter()
        call = timed_call.jax_forward(callable_)
        call()
        row["first_call_s"] = time.perf_counter() - begin
        forward[name] = call
        args, kwargs = run.jax_arguments()
        row |= operations_of(callable_._planned(args, kwargs).op)
        if timed_call.has_gradient:
            back = timed_call.jax_gradient(callable_)
            begin = time.perf_counter()
            back()
            row["first_gradient_s"] = time.perf_counter() - begin
            gradient[name] = back
    except Exception as error:  # of the function, of the backend, or of a compiler behind it
        row["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]


def _enter(rows: dict[str, dict[str, Any]], word: str, found: dict[str, Times]) -> None:
    torch_alone = found["torch"].median_us
    for name, times in found.items():
        rows[name][word] = {
            "median_us": times.median_us,
            "spread": times.spread,
            "of_torch": times.median_us / torch_alone,
        }


def _advice(subject: Subject, rows: list[dict[str, Any]]) -> str:
    """What to write into the contract."""
    word = "gradient" if any("gradient" in row for row in rows) else "forward"
    of_jax = {row["backend"]: row[word]["median_us"] for row in rows[1:] if word in row}
    if not of_jax:
        return "no backend runs it"
    best = min(of_jax, key=lambda name: of_jax[name])
    now = subject.spec.execution.backend
    written = "eager" if now == "auto" else now
    measured = of_jax.get(written)
    if best == written or (measured is not None and of_jax[best] > _WORTH_NAMING * measured):
        return f"leave the backend as it is ({now}): no other gains 5 % in its {word}"
    gain = f", {measured / of_jax[best]:.2f} times as fast in its {word}" if measured else ""
    return f"write `execution: {{backend: {best}}}` into the contract{gain}"
