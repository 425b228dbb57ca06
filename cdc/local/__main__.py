"""``python -m cdc.local``: starts, shows and stops a stack. Everyday use is ``docker/stack``.

Exit status: 0 done, or all parts run; 1 an error, named on stderr; 2 wrong usage; 3 (``status``) not all
parts run.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cdc.errors import CdcError
from cdc.local.stack import Flavour, Stack, flavour_of

_NOT_RUNNING = 3

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Start, show and stop Postgres, Kafka and Redis on this machine, on 127.0.0.1.",
)


class _Flavour(StrEnum):
    embedded = "embedded"
    apache = "apache"


class _Output(StrEnum):
    text = "text"
    json = "json"


_FlavourOption = Annotated[
    _Flavour | None,
    typer.Option(
        "--flavour",
        help="embedded: wheels alone, topics in memory. apache: Apache Kafka, the system's Postgres and "
        "Redis. Default: what DIR holds, else embedded.",
    ),
]
_DirOption = Annotated[
    Path | None, typer.Option("--dir", help="The data folder. Default: .stack/<flavour> in this folder.")
]
_OutputOption = Annotated[_Output, typer.Option("--output", help="For people or for programs.")]
_Port = typer.Option(min=1, max=65535, help="Default: the last one used in DIR, else a free one.")


@app.command()
def start(
    flavour: _FlavourOption = None,
    directory: _DirOption = None,
    postgres_port: Annotated[int | None, _Port] = None,
    kafka_port: Annotated[int | None, _Port] = None,
    redis_port: Annotated[int | None, _Port] = None,
    output: _OutputOption = _Output.text,
) -> None:
    """Start what does not run yet; the servers stay until they are stopped."""
    stack = _stack(flavour, directory, postgres_port=postgres_port, kafka_port=kafka_port, redis_port=redis_port)
    already = stack.is_running()
    stack.start()
    _show(stack, output, "already running" if already else "running")


@app.command()
def status(flavour: _FlavourOption = None, directory: _DirOption = None, output: _OutputOption = _Output.text) -> None:
    """Show every part; exit status 3 unless all run."""
    stack = _stack(flavour, directory)
    running = _show(stack, output, None)
    if not running:
        raise typer.Exit(_NOT_RUNNING)


@app.command()
def stop(flavour: _FlavourOption = None, directory: _DirOption = None, output: _OutputOption = _Output.text) -> None:
    """Stop what runs; data stays."""
    stack = _stack(flavour, directory)
    stack.stop()
    _show(stack, output, "stopped")


def _stack(
    flavour: _Flavour | None,
    directory: Path | None,
    postgres_port: int | None = None,
    kafka_port: int | None = None,
    redis_port: int | None = None,
) -> Stack:
    chosen: Flavour = "embedded"
    if flavour is not None:
        chosen = flavour.value
    elif directory is not None:
        chosen = flavour_of(directory) or chosen
    return Stack(
        chosen,
        directory or Path(".stack") / chosen,
        postgres_port=postgres_port,
        kafka_port=kafka_port,
        redis_port=redis_port,
    )


def _show(stack: Stack, output: _Output, state: str | None) -> bool:
    """Write what the stack looks like; whether all of it runs. ``state`` None says just that."""
    parts = stack.status()
    running = all(part.state == "running" for part in parts)
    state = state or ("running" if running else "not running")
    password_file = stack.postgres.directory / "password"
    if output is _Output.json:
        answer = {
            "flavour": stack.flavour,
            "directory": str(stack.directory),
            "state": state,
            "parts": [dataclasses.asdict(part) for part in parts],
            "postgres_user": stack.postgres.user,
            "postgres_password_file": str(password_file),
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return running
    table = Table(title=f"{stack.flavour} stack: {state}")
    for heading in ("part", "server", "endpoint", "pid", "state"):
        table.add_column(heading, no_wrap=True)
    for part in parts:
        table.add_row(part.part, part.name, part.endpoint or "-", str(part.pid or "-"), part.state)
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"data, logs: {stack.directory}", highlight=False)
    if password_file.exists():
        console.print(f"Postgres: user {stack.postgres.user}, password in {password_file}", highlight=False)
    return running


def main() -> None:
    """Run the command line; an expected error is one message and exit status 1."""
    try:
        app(prog_name="stack")
    except CdcError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
