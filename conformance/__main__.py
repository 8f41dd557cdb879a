"""Try the database of operators, in all dtypes and ways, and write the page.

What to try, and where what came of it goes:

    python -m conformance                           all
    python -m conformance svd linalg.qr             these
    python -m conformance --dtypes float32 --ways vjp
    python -m conformance --resume                  what is not in the file of results, or is wrong
    python -m conformance --page docs/conformance.md
    python -m conformance --backend xla --evidence conformance/xla_evidence.txt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from jaxtorch_bridge.choices import Backend

from .database import DTYPES, MORE_DTYPES, entries
from .evidence import write_evidence
from .page import write_page
from .result import Result, read_results
from .ways import EDGES, WAYS
from .workers import try_all


def main() -> int:
    """Run what was asked for; 1 if anything is wrong."""
    options = _options()
    names = options.names or list(entries())
    unknown = sorted(set(names) - set(entries()))
    if unknown:
        sys.exit(f"the database has no {', '.join(unknown)}")
    if not options.resume:
        options.results.unlink(missing_ok=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    done = {
        (result.entry, result.dtype, result.way)
        for result in read_results(options.results)
        if result.outcome.kind != "wrong"
    }
    tasks = []
    # The dtypes of an entry one after another, so that a run that is stopped has whole entries.
    for name in names:
        for dtype in options.dtypes:
            left = [way for way in options.ways if (name, dtype, way) not in done]
            if left:
                tasks.append((name, dtype, left))
    with options.results.open("a", buffering=1) as file:

        def note(result: Result) -> None:
            file.write(result.line() + "\n")
            if options.verbose or result.outcome.kind == "wrong":
                words = f"{result.outcome.kind}: {result.outcome.words}"
                print(result.entry, result.dtype, result.way, words, flush=True)

        try_all(tasks, options.processes, note, verbose=options.verbose, backend=options.backend)
    results = read_results(options.results)
    wrong = [result for result in results if result.outcome.kind == "wrong"]
    print(f"{len(results)} results, {len(wrong)} of them wrong")
    if options.evidence:
        write_evidence(results, options.evidence)
    if options.page:
        _check_all(results)
        write_page(results, options.page)
    return 1 if wrong else 0


def _check_all(results: Sequence[Result]) -> None:
    """A page is of everything: what is missing would look as if it did not exist."""
    wanted = {(name, dtype, way) for name in entries() for dtype in DTYPES for way in WAYS}
    missing = wanted - {(result.entry, result.dtype, result.way) for result in results}
    if missing:
        sys.exit(f"no page: {len(missing)} of {len(wanted)} results are missing; --resume goes on")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="entries; all if there is none")
    parser.add_argument("--dtypes", nargs="+", choices=(*DTYPES, *MORE_DTYPES), default=DTYPES)
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, EDGES), default=WAYS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--backend", choices=get_args(Backend), help="what runs the operators")
    parser.add_argument("--results", type=Path, default=Path("build/conformance.jsonl"))
    parser.add_argument(
        "--resume", action="store_true", help="leave out what is done and not wrong"
    )
    parser.add_argument("--page", type=Path, help="where to write the page")
    parser.add_argument("--evidence", type=Path, help="where to write that of the backend xla")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every result")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
