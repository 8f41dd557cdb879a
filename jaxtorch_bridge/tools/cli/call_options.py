"""How a person says which call of which contract is meant, for several subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

Contract = Annotated[
    str,
    typer.Argument(help="A contract: a file, attention@2, or attention for the newest version."),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="SIZES",
        help="A size for each dimension: batch=8,seq=128; ...=2x3 for what `...` stands for.",
    ),
]
Static = Annotated[
    list[str] | None,
    typer.Option("--static", metavar="NAME=VALUE", help="A static argument. May be repeated."),
]
Dtype = Annotated[
    list[str] | None,
    typer.Option("--dtype", metavar="INPUT=DTYPE", help="Of an input that may have several."),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="INPUT", help="Leave an optional input out."),
]
