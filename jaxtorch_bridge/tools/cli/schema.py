"""``jaxtorch schema``: the JSON Schema of contract files, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import JsonFlag, finish, print_json, stop


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("schema")(schema)


def schema(
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write it to this file.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if the file differs.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the JSON Schema of contract files (draft 2020-12).

    Editors with YAML support complete and check a contract that begins with
    "# yaml-language-server: $schema=" and the path of that file.
    """
    from ...spec.files.json_schema import schema_text

    text = schema_text()
    if output is None:
        if check:
            stop("--check needs --output FILE.")
        # The schema is JSON itself, with and without --json.
        typer.echo(text, nl=False)
        finish(False)
    current = _read(output)
    if not check and current != text:
        _write(output, text)
    differs = check and current != text
    if as_json:
        print_json({"file": output, "up_to_date": not differs, "written": not check})
    elif differs:
        typer.echo(f"{output} is out of date; run: jaxtorch schema -o {output}")
    finish(differs)


def _read(file: str) -> str | None:
    try:
        # Line ends as they stand there: others than ours make the file out of date.
        with open(file, encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        stop(f"`{file}` cannot be read: {error}")


def _write(file: str, text: str) -> None:
    from ...spec.files.atomic_write import write_whole

    try:
        write_whole(file, text)
    except OSError as error:
        stop(f"`{file}` cannot be written: {error.strerror or error}")
