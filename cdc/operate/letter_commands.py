"""The commands of ``cdc dlq``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdc.operate.options import Connector, Files, Output

if TYPE_CHECKING:
    from cdc.config import Config

__all__ = ["letter_commands"]


def letter_commands(load: Callable[[list[Path]], Config], redact: Callable[[str], str]) -> typer.Typer:
    """The group; ``load`` reads a configuration, ``redact`` takes its secrets out of what is printed."""
    group = typer.Typer(no_args_is_help=True)

    @group.command("list")
    def list_letters(
        files: Files,
        connector: Connector,
        everything: Annotated[bool, typer.Option("--all", help="Those that were replayed, too.")] = False,
        output: Output = "text",
    ) -> None:
        """Count the open letters of a connector by topic, partition and error."""
        from cdc.operate import dlq  # noqa: PLC0415

        found = dlq.list_letters(load(files), connector, everything=everything)
        typer.echo(redact(dlq.render_list(found, output)))

    @group.command("show")
    def show_letter(
        files: Files,
        connector: Connector,
        letter: Annotated[
            str | None, typer.Option(help="Which; default the last open one.", metavar="ID", show_default=False)
        ] = None,
        output: Output = "text",
    ) -> None:
        """Show one letter: where its record was, what was wrong with it, key and value decoded as far as that goes."""
        from cdc.operate import dlq  # noqa: PLC0415

        typer.echo(redact(dlq.render_letter(dlq.show_letter(load(files), connector, letter), output)))

    @group.command("replay")
    def replay_letters(
        files: Files,
        connector: Connector,
        letter: Annotated[
            list[str] | None, typer.Option(help="Only this one; may be repeated.", metavar="ID", show_default=False)
        ] = None,
        output: Output = "text",
    ) -> None:
        """Mirror what was put aside, now that its cause is mended; nothing newer is ever overwritten.

        May run beside the sink, be interrupted and repeated. Exit status: 0 nothing is open any more, 1 some letters
        are.
        """
        from cdc.operate import dlq  # noqa: PLC0415

        report = dlq.replay(load(files), connector, letter or (), lambda text: typer.echo(text, err=True))
        typer.echo(redact(dlq.render_replay(report, output)))
        raise typer.Exit(0 if report.done else 1)

    return group
