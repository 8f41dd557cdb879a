"""``jaxtorch bench``: how fast a contract's function is by every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .call_options import Contract, Dtype, Shape, Static, Without
from .output import JsonFlag, errors_reported, finish, print_json, stop


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("bench")(bench)


def bench(
    name: Contract,
    shape: Shape = None,
    static: Static = None,
    dtype: Dtype = None,
    without: Without = None,
    backends: Annotated[
        str, typer.Option("--backends", metavar="NAMES", help="What to time beside torch.")
    ] = "eager,graph,compile,xla",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="How long to time calls, and gradients.")
    ] = 5.0,
    as_json: JsonFlag = False,
) -> None:
    """Time a contract's function by every backend, forward and gradient, beside torch.

    Imports the function that the contract names, and runs it on made-up values. Times are medians
    with the spread of their middle half, all taken in turn; the last line says which backend to
    write into the contract.
    """
    with errors_reported(as_json=as_json):
        from ..plan.request import RequestError

        try:
            from ..bench.outline import bench_named

            with _progress() as told:
                outline = bench_named(
                    name,
                    shape or (),
                    static=static or (),
                    dtypes=dtype or (),
                    without=without or (),
                    backends=[one.strip() for one in backends.split(",") if one.strip()],
                    seconds=seconds,
                    told=told,
                )
        except RequestError as error:
            stop(str(error))
    if as_json:
        print_json(outline)
    else:
        from ..bench.table import print_bench

        print_bench(outline)
    finish(False)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
