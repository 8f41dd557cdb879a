"""``jaxtorch plan``: what is decided about one call."""

from __future__ import annotations

from typing import Annotated

import typer

from .call_options import Contract, Dtype, Shape, Static, Without
from .output import JsonFlag, errors_reported, finish, print_json, stop


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("plan")(plan)


def plan(
    name: Contract,
    shape: Shape = None,
    static: Static = None,
    dtype: Dtype = None,
    without: Without = None,
    mesh: Annotated[
        list[str] | None,
        typer.Option("--mesh", metavar="SIZES", help="Cut into shards: data=2,model=4."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="The size of the batch to look at under vmap.")
    ] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Show the plan of one call: derivatives and what they keep, batches, shards, results.

    Imports the function that the contract names, and evaluates it abstractly.
    """
    with errors_reported(as_json=as_json):
        from ..plan.request import RequestError

        try:
            from ..plan.asked_call import outline_named

            outline = outline_named(
                name,
                shape or (),
                static=static or (),
                dtypes=dtype or (),
                without=without or (),
                mesh=mesh or (),
                batch=batch,
            )
        except RequestError as error:
            stop(str(error))
    if as_json:
        print_json(outline)
    else:
        from ..plan.table import print_table

        print_table(outline)
    finish(False)
