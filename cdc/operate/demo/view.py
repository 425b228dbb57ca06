"""What the demo shows while it runs: a live picture on a terminal, else one line a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cdc.operate.demo.probe import Lag

__all__ = ["Figures", "line", "picture"]

_BARS = "▁▂▃▄▅▆▇█"
_NARROW_VALUE = 54


@dataclass(slots=True)
class Figures:
    """The state of the demo at one moment.

    ``elapsed`` of ``seconds`` have passed since the first row was mirrored (``None`` before). ``written`` and ``rate``
    are row changes committed by the application, ``streamed`` and ``mirrored`` records that source and sink have
    written, those of the snapshot included; ``fresh`` are the fields of the shown hash that have just changed.
    """

    elapsed: float | None
    seconds: float
    written: int = 0
    transactions: int = 0
    rate: float = 0.0
    streamed: int = 0
    mirrored: int = 0
    mirror_rate: float = 0.0
    keys: int = 0
    lag: Lag | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    hash: Mapping[str, str] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    lags_ms: tuple[float, ...] = ()


def picture(now: Figures, route: str) -> RenderableType:
    """The live view; ``route`` names the servers. Fits 80 columns and 24 lines."""
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim", no_wrap=True)
    figures.add_column(no_wrap=True, overflow="ellipsis")
    figures.add_row(
        "written to Postgres",
        Text.assemble(
            (f"{now.written:,}", "bold"), f" row changes, {now.transactions:,} transactions, {now.rate:,.0f} rows/s"
        ),
    )
    figures.add_row("streamed to Kafka", Text.assemble((f"{now.streamed:,}", "bold"), " records, snapshot included"))
    figures.add_row(
        "mirrored to Redis",
        Text.assemble((f"{now.mirrored:,}", "bold"), f" records, {now.mirror_rate:,.0f}/s; {now.keys:,} keys"),
    )
    figures.add_row("commit → visible", _lag_text(now))
    states = Text("  ").join(
        Text.assemble(name + " ", (state, "green" if state == "RUNNING" else "bold red"))
        for name, state in now.tasks.items()
    )
    figures.add_row("tasks", states)
    fields = Table(box=None, padding=(0, 2), show_header=False)
    fields.add_column(style="cyan", no_wrap=True)
    fields.add_column(overflow="ellipsis", no_wrap=True)
    for name, value in now.hash.items():
        fields.add_row(name, Text(_one_line(value), style="bold yellow" if name in now.fresh else ""))
    left = "starting" if now.elapsed is None else f"{max(0.0, now.seconds - now.elapsed):.0f} s left"
    return Group(
        Panel(figures, title=f"[bold]cdc demo[/bold]  {route}", subtitle=left, box=box.ROUNDED),
        Panel(fields, title=f"redis> HGETALL {now.key}", title_align="left", box=box.ROUNDED),
    )


def line(now: Figures) -> str:
    """The same as one line of text."""
    lag = "-" if now.lag is None else f"p50 {_ms(now.lag.p50)}, p99 {_ms(now.lag.p99)}"
    shown = ", ".join(f"{name} {_one_line(now.hash[name])}" for name in ("tier", "points") if name in now.hash)
    time = "starting" if now.elapsed is None else f"{now.elapsed:.0f} s"
    return (
        f"{time}: {now.written:,} row changes written ({now.rate:,.0f}/s), {now.streamed:,} records streamed, "
        f"{now.mirrored:,} mirrored, {now.keys:,} keys, commit → visible {lag}; {now.key}: {shown or '-'}"
    )


def _lag_text(now: Figures) -> Text:
    if now.lag is None:
        return Text("measuring …", style="dim")
    text = Text.assemble("p50 ", (_ms(now.lag.p50), "bold green"), "  p99 ", (_ms(now.lag.p99), "bold"), "  ")
    if now.lag.waiting > 1:
        text.append(f"waiting for {now.lag.waiting:.0f} s", style="bold red")
    else:
        text.append(_sparkline(now.lags_ms), style="dim")
    return text


def _sparkline(values: tuple[float, ...]) -> str:
    """Values as bars, the highest as high as it goes; from zero, so that heights compare."""
    top = max(values, default=0.0)
    return "".join(_BARS[min(7, int(value / top * 7.99))] for value in values) if top > 0 else ""


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:,.0f} ms"


def _one_line(value: str) -> str:
    text = " ".join(value.split())
    return text if len(text) <= _NARROW_VALUE else text[: _NARROW_VALUE - 1] + "…"
