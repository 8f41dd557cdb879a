"""A process that tries entries, one after another: ``python -m conformance.worker [BACKEND]``.

Takes tasks from its standard input and answers on what was its standard output, in lines of JSON:
first the way that is tried, then what came of it. So whoever reads knows what it died of.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch

from jaxtorch_bridge import jax_callable

from .database import entries, has_dtype
from .outcome import Outcome, combined, words_of
from .samples import Case, cases
from .ways import try_way

# Of those of float32 two, since the second finds what the plainest does not; the others are there
# for their dtypes.
_CASES = {"float32": 2}


def main() -> None:
    """Answer tasks until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what torch prints is no answer
    # There is a process for each core.
    torch.set_num_threads(1)
    backend = sys.argv[1] if len(sys.argv) > 1 else None
    # What torch would run amid JAX's operations proves nothing of these.
    alone = {"islands": False} if backend == "xla" else {}
    wrap = functools.partial(jax_callable, backend=backend, **alone) if backend else jax_callable
    for line in sys.stdin:
        task = json.loads(line)
        _answer(answers, task["entry"], task["dtype"], task["ways"], wrap)


def _answer(
    answers: TextIO, name: str, dtype: str, ways: list[str], wrap: Callable[..., Any]
) -> None:
    made: list[Case] | Outcome | None = None
    for way in ways:
        _send(answers, way=way)
        began = time.monotonic()
        if made is None:
            made = _cases(name, dtype)
        if isinstance(made, Outcome):
            outcome = made
        else:
            outcome = combined([try_way(name, way, case, wrap) for case in made])
        seconds = round(time.monotonic() - began, 3)
        _send(answers, kind=outcome.kind, words=outcome.words, seconds=seconds)


def _cases(name: str, dtype: str) -> list[Case] | Outcome:
    entry = entries().get(name)
    if entry is None:
        return Outcome("no entry")
    if not has_dtype(entry, dtype):
        return Outcome("no dtype")
    try:
        return cases(entry, dtype, _CASES.get(dtype, 1))
    except Exception as error:
        return Outcome("torch", words_of(error))


def _send(answers: TextIO, **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
