"""The command line: ``cdc run | check | verify | rebuild | snapshot | demo | slot | offsets | dlq | config | version``.

Every command imports what it needs when it runs, so that ``cdc --help`` answers at once. Errors are one clear line each
on stderr; a traceback only with ``--debug``; secrets never.

Exit status: 0 done, 1 a part failed or a difference was found, 2 the configuration or the command line is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from cdc.operate.letter_commands import letter_commands
from cdc.operate.options import Files, Output, Source

if TYPE_CHECKING:
    from cdc.config import Config

__all__ = ["app", "main"]

app = typer.Typer(
    name="cdc",
    help="Keeps key-value stores in sync with Postgres through Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


class _Session:
    """What the top level needs to know to show an error: whether to trace, and what is secret."""

    def __init__(self) -> None:
        self.debug = False
        self.secrets: Any = None

    def redact(self, text: str) -> str:
        return text if self.secrets is None else str(self.secrets.redact(text))


_session = _Session()


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
) -> None:
    _session.debug = debug


@app.command(short_help="Run a worker until SIGINT or SIGTERM.")
def run(
    files: Files,
    status_file: Annotated[
        Path | None,
        typer.Option(help="Keep this file equal to the worker's status (JSON).", show_default=False),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least level of the log lines on stderr.")
    ] = "info",
    log_format: Annotated[
        Literal["auto", "console", "json"], typer.Option(help="auto: console on a terminal, else JSON.")
    ] = "auto",
) -> None:
    """Run a worker with the connectors of FILE until SIGINT or SIGTERM.

    The whole configuration is validated before anything starts. Each task is a process of its own; one that dies is
    shown with its cause and restarted with backoff. A signal lets the tasks drain; a second one kills them.
    """
    from cdc.errors import ConfigError  # noqa: PLC0415
    from cdc.observe.logging import choose_format, configure_logging  # noqa: PLC0415
    from cdc.runtime.standalone import run as run_worker  # noqa: PLC0415
    from cdc.runtime.survey import survey  # noqa: PLC0415

    config = _load(files)
    level = "debug" if _session.debug else log_level
    chosen = choose_format(sys.stderr) if log_format == "auto" else log_format
    configure_logging(level, chosen, config.secrets.redact)
    if findings := survey(config):
        raise ConfigError(findings)
    raise typer.Exit(run_worker(config, status_file=status_file, log_level=level, log_format=chosen))


@app.command(short_help="Find what is not ready, and what mends it.")
def check(files: Files, output: Output = "text") -> None:
    """Look whether FILE, the databases, Kafka, the registry and Redis are ready, and say what mends what is not.

    Exit status: 0 nothing found, 1 findings, 2 the configuration is not valid.
    """
    from cdc.operate import check as preflight  # noqa: PLC0415

    loaded = _load(files)
    _log_quietly()
    findings = preflight.check(loaded)
    typer.echo(preflight.render(loaded, findings, output))
    raise typer.Exit(1 if findings else 0)


@app.command(short_help="Compare Redis with Postgres while writes go on.")
def verify(
    files: Files,
    connector: Annotated[str | None, typer.Option(help="Only this sink.", metavar="NAME", show_default=False)] = None,
    table: Annotated[
        str | None, typer.Option(help="Only this table.", metavar="SCHEMA.TABLE", show_default=False)
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what differs, and only that, then compare again.")
    ] = False,
    output: Output = "text",
) -> None:
    """Compare Redis with Postgres, row by row and field by field, while writes go on.

    Exit status: 0 equal, 1 differences, 2 the configuration is not valid, 3 a part is away or keys could not be judged.
    """
    from cdc.operate.verify import run_verify  # noqa: PLC0415

    loaded = _load(files)
    _log_quietly()
    raise typer.Exit(run_verify(loaded, connector=connector, table=table, output=output, echo=typer.echo, mend=repair))


@app.command(short_help="Make the rows in Redis again from the topics, in place.")
def rebuild(
    files: Files,
    connector: Annotated[str, typer.Option(help="Name of the sink.", metavar="NAME", show_default=False)],
    topic: Annotated[
        list[str] | None, typer.Option(help="Only this topic; may be given several times.", show_default=False)
    ] = None,
    output: Output = "text",
) -> None:
    """Compare each row in Redis with its last record, write those that differ, and remove keys that no record tells of.

    In place, while the sink goes on: no row is missing or older at any moment. May be interrupted: the same command
    then goes on where it was.

    Exit status: 0 done, 1 a topic or the store forbids it, 2 the configuration is not valid, 130 interrupted.
    """
    from cdc.operate.rebuild import run_rebuild  # noqa: PLC0415

    loaded = _load(files)
    _log_quietly()
    raise typer.Exit(run_rebuild(loaded, connector, topic or [], output=output, echo=typer.echo))


@app.command(short_help="See it work on this machine, with proof.")
def demo(
    seconds: Annotated[float, typer.Option(help="How long to keep writing.", min=1)] = 20.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running at the end.")] = False,
    flavour: Annotated[
        Literal["embedded", "apache"],
        typer.Option(
            help="embedded: servers from Python packages; apache: Apache Kafka, the system's Postgres and Redis."
        ),
    ] = "embedded",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="Folder for data, configuration and logs; default a temporary one.", show_default=False
        ),
    ] = None,
) -> None:
    """Start Postgres, Kafka and Redis on this machine, mirror a shop while it is used, and prove both ends equal.

    Exit status: 0 Redis equals Postgres, 1 it does not.
    """
    from cdc.operate.demo.run import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(seconds, keep=keep, flavour=flavour, directory=directory))


@app.command(short_help="Validate and show FILE, or list all properties.")
def config(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Configuration to show.", metavar="[FILE...]", show_default=False)
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Print all properties of worker, or of a connector such as postgres or redis; all for everything.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Literal["text", "json", "markdown"], typer.Option(help="How to print it.")] = "text",
) -> None:
    """Validate FILE and show what it means, secrets masked; or print the reference of all properties."""
    from cdc.config.reference import render_config, render_reference  # noqa: PLC0415

    if reference is not None:
        typer.echo(render_reference(reference, output))
    elif files:
        typer.echo(render_config(_load(files), output))
    else:
        raise typer.BadParameter("name a FILE to show, or --reference NAME")


@app.command(short_help="Read tables again while they are streamed.")
def snapshot(
    files: Files,
    connector: Source,
    table: Annotated[
        list[str] | None,
        typer.Option(help="A table, or a regular expression for several; may be given again.", metavar="SCHEMA.TABLE"),
    ] = None,
    where: Annotated[
        str, typer.Option(help="Read only rows that fulfil this SQL condition.", metavar="SQL", show_default=False)
    ] = "",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="At the end, delete the keys of rows that are not there any more.")
    ] = False,
    blocking: Annotated[
        bool, typer.Option("--blocking", help="Mark the records as those of an initial snapshot.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the snapshots of the tables; of all, without any.")
    ] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Hold all snapshots that were asked for.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with those that are held.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
    output: Output = "text",
) -> None:
    """Ask a source to read the rows of tables again, beside their stream; or hold or stop what was asked for.

    The order is written to the source's topic of signals: it is acted on once, also by a source that is down now.

    Exit status: 0 written, or done with --wait; 1 failed or stopped; 2 the order cannot be acted on.
    """
    from cdc.operate import snapshot as orders  # noqa: PLC0415

    loaded = _load(files)
    _log_quietly()
    order = orders.order_of(table or [], where, sweep=sweep, blocking=blocking, stop=stop, pause=pause, resume=resume)
    sent = orders.send_order(loaded, connector, order)
    if wait:
        typer.echo(f"{order[0]} {sent['id']} is written to {sent['topic']}; waiting", err=True)
        outcome = orders.await_outcome(loaded, connector, sent["id"])
        typer.echo(orders.render(outcome, output))
        raise typer.Exit(0 if orders.succeeded(outcome) else 1)
    typer.echo(orders.render_sent(order, sent, output))


offsets = typer.Typer(no_args_is_help=True)
app.add_typer(offsets, name="offsets", help="Show or delete what a source has stored about where it stands.")


@offsets.command("show")
def show_offsets(files: Files, connector: Source, output: Output = "text") -> None:
    """Show the offsets of a source connector."""
    from cdc.operate import offsets as stored  # noqa: PLC0415

    typer.echo(stored.render(stored.show_offsets(_load(files), connector), output))


@offsets.command("delete")
def delete_offsets(files: Files, connector: Source, output: Output = "text") -> None:
    """Delete the offsets of a source connector: it starts over with a snapshot. Stop it first.

    Keys of rows that were deleted while nobody streamed stay, in topics and in Redis: `cdc slot reset` removes them.
    """
    from cdc.operate import offsets as stored  # noqa: PLC0415

    deleted = stored.delete_offsets(_load(files), connector)
    typer.echo(stored.render(deleted, output))
    typer.echo(
        f"deleted {len(deleted)} offsets: {connector} takes a new snapshot when it is started next. "
        "A task of it that still ran has been fenced off, and starts over by itself",
        err=True,
    )


class _ShowByDefault(TyperGroup):
    """A group in which ``cdc slot FILE`` is ``cdc slot show FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


slot = typer.Typer(no_args_is_help=True, cls=_ShowByDefault)
app.add_typer(slot, name="slot", help="Show the replication slots of the sources, or make one anew after a gap.")


@slot.command("show")
def show_slots(
    files: Files,
    connector: Annotated[str | None, typer.Option(help="Only this source.", metavar="NAME", show_default=False)] = None,
    output: Output = "text",
) -> None:
    """Show the slot of every Postgres source: who holds it, what it retains, how far the stored position is, and
    what would be lost with it. ``cdc slot FILE`` does the same.

    Exit status: 0 all is well, 1 something is wrong, 2 the configuration is not valid.
    """
    from cdc.operate import slots  # noqa: PLC0415

    loaded = _load(files)
    _log_quietly()
    found = slots.show_slots(loaded, connector)
    typer.echo(slots.render(found, output))
    raise typer.Exit(1 if any(report.problems for report in found) else 0)


@slot.command("reset")
def reset_slot(
    files: Files,
    connector: Source,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Output = "text",
) -> None:
    """Give up what cannot be had any more, and make things right again.

    The next start makes the replication slot anew, reads every table again beside the stream, and deletes the keys of
    rows that are gone from the topics, and so from every sink. A worker that runs does so at once.
    """
    from cdc.operate import slots  # noqa: PLC0415

    loaded = _load(files)
    _log_quietly()
    plan = slots.plan_reset(loaded, connector)
    typer.echo(plan.text(), err=True)
    if not yes and not typer.confirm("Reset it?", err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)
    typer.echo(slots.render_reset(slots.reset_slot(loaded, connector), output))


def _load_quietly(files: list[Path]) -> Config:
    loaded = _load(files)
    _log_quietly()
    return loaded


def _redact(text: str) -> str:
    return _session.redact(text)


app.add_typer(
    letter_commands(_load_quietly, _redact),
    name="dlq",
    help="List, show or replay the dead letters of a connector.",
)


@app.command(short_help="Print the version.")
def version() -> None:
    """Print the version of cdc, and of the libraries that talk to Postgres, Kafka and Redis."""
    from importlib.metadata import version as version_of  # noqa: PLC0415
    from platform import python_version  # noqa: PLC0415

    parts = ", ".join(f"{name} {version_of(name)}" for name in ("psycopg", "confluent-kafka", "fastavro", "redis"))
    typer.echo(f"cdc {version_of('cdc')} (Python {python_version()}, {parts})")


def _load(files: list[Path]) -> Config:
    from cdc.config import Secrets, load  # noqa: PLC0415

    _session.secrets = Secrets()
    return load(files, secrets=_session.secrets)


def _log_quietly() -> None:
    """Logs only with ``--debug``: for commands whose result says all there is to say."""
    from cdc.observe.logging import choose_format, configure_logging  # noqa: PLC0415

    level = "debug" if _session.debug else "critical"
    configure_logging(level, choose_format(sys.stderr), _session.redact)


def main() -> None:
    """The entry point ``cdc``. Ends the process with the exit status."""
    from cdc.errors import CdcError, ConfigError  # noqa: PLC0415

    try:
        app(prog_name="cdc")
    except ConfigError as error:
        _fail(error, "\n".join(str(finding) for finding in error.findings), 2)
    except CdcError as error:
        _fail(error, str(error), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as with `cdc config … | head`
        sys.stdout = None
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last frame
        told = f"internal error: {type(error).__name__}: {error}. Run cdc --debug … for the trace"
        _fail(error, told, 1)


def _fail(error: Exception, told: str, status: int) -> None:
    import traceback  # noqa: PLC0415

    if _session.debug:
        sys.stderr.write(_session.redact("".join(traceback.format_exception(error))))
    for line in _session.redact(told).splitlines():
        sys.stderr.write(f"cdc: {line}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
