"""``jaxtorch infer``: a first contract of a function."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .output import JsonFlag, errors_reported, finish, print_json, stop


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("infer")(infer)


def infer(
    target: Annotated[
        str,
        typer.Argument(metavar="FUNCTION", help="module:function, such as mylib.ops:attention."),
    ],
    example: Annotated[
        list[str] | None,
        typer.Option(
            "--example",
            metavar="ARRAY",
            help="float32[8,128] for the next parameter, x=float32[batch=8,128] or "
            "params.w=float32[128,64]. Without any: jaxtyping's annotations.",
        ),
    ] = None,
    static: Annotated[
        list[str] | None,
        typer.Option("--static", metavar="NAME=VALUE", help="For a parameter without a default."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the contract (default: the function's).")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write it to this file.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a first contract of a function, from examples of its arrays or from annotations.

    Which sizes belong together is found out by trying others; names are guessed and marked.
    """
    # Also a link that leads nowhere: writing would go where it points.
    if output is not None and os.path.lexists(output) and not force:
        stop(f"`{output}` is there already; --force replaces it.")
    with errors_reported(as_json=as_json):
        from ..plan.request import RequestError

        try:
            from ..infer.draft import draft

            found = draft(target, example or (), static=static or (), name=name)
        except RequestError as error:
            stop(str(error))
    if output is not None:
        from ...spec.files.atomic_write import write_whole

        try:
            write_whole(output, found.text)
        except OSError as error:
            stop(f"`{output}` cannot be written: {error.strerror or error}")
    if as_json:
        print_json(
            {
                "file": output,
                "text": found.text,
                "contract": found.contract,
                "guessed": list(found.guessed),
                "problems": [vars(one) for one in found.problems],
            }
        )
    else:
        if output is None:
            typer.echo(found.text, nl=False)
        for problem in found.problems:
            typer.echo(str(problem), err=True)
    finish(bool(found.problems))
