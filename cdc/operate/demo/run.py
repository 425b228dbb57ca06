"""``cdc demo``: everything up, real data flowing, and the proof that Redis equals Postgres."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from cdc.config import Config, load
from cdc.errors import FatalError
from cdc.local.stack import Flavour, Stack
from cdc.observe.logging import configure_logging
from cdc.operate.demo.bridge import write_bridge
from cdc.operate.demo.probe import KEY, Probe
from cdc.operate.demo.shop import DATABASE, Shop, create_shop
from cdc.operate.demo.traffic import Traffic
from cdc.operate.demo.view import Figures, line, picture
from cdc.operate.demo.watch import Watch
from cdc.operate.verify import Report, wait_until_equal
from cdc.runtime.worker import Worker

__all__ = ["run_demo"]

FIRST_ROW_S: Final = 60.0
"""How long the bridge may take from its start to the first mirrored row."""
CATCH_UP_S: Final = 60.0
FRAME_S: Final = 0.125


def run_demo(
    seconds: float = 20.0,
    *,
    keep: bool = False,
    flavour: Flavour = "embedded",
    directory: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo and print what happens; exit status 0 if Redis equals Postgres at the end, else 1.

    ``directory`` (default: a temporary folder) gets the servers' data, ``bridge.yaml`` and ``bridge.log``. With
    ``keep`` servers and folder stay when the demo ends by itself. Must be called in the main thread: SIGINT, SIGTERM
    and SIGHUP end everything, whatever ``keep`` says. Raises `cdc.local.MissingPart` when something is not installed,
    and errors of `cdc.errors` when a part does not come up.
    """
    out = console or Console(highlight=False)
    with _interruptible(), ExitStack() as cleanup:
        folder = _folder(directory)
        if directory is None:
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        stack = Stack(flavour, folder / "stack", die_with_parent=not keep)
        cleanup.callback(stack.stop)
        demo = _Demo(folder, stack, out, seconds)
        try:
            report = demo.run()
        except FatalError:
            demo.show_log()
            raise
        if keep:
            cleanup.pop_all()
            demo.tell_kept()
        return report.exit_status


class _Demo:
    def __init__(self, folder: Path, stack: Stack, out: Console, seconds: float) -> None:
        self._folder = folder
        self._stack = stack
        self._out = out
        self._seconds = seconds
        self._log = folder / "bridge.log"
        self._bridge = folder / "bridge.yaml"

    def run(self) -> Report:
        with self._step("Starting Postgres, Kafka and Redis on 127.0.0.1"):
            self._stack.start()
        with self._step("Creating a shop in Postgres"):
            shop = create_shop(self._stack.postgres)
            write_bridge(self._bridge, self._stack, shop)
        self._say(f"The bridge's whole configuration: {self._bridge}")
        config = load([self._bridge])
        with ExitStack() as bridge:
            bridge.enter_context(_stderr_to(self._log, config))
            worker = bridge.enter_context(Worker(config))
            return self._mirror(config, shop, worker)

    def show_log(self, lines: int = 12) -> None:
        """Print the end of the bridge's log, if there is one."""
        if self._log.exists():
            self._say(f"The end of {self._log}:")
            for text in self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]:
                self._say(f"  {text}")

    def tell_kept(self) -> None:
        """Say what was left running and how to go on."""
        postgres, kafka, redis = self._stack.postgres, self._stack.kafka, self._stack.redis
        self._say("The servers go on running:")
        self._say(f"  Postgres  {postgres.endpoint}, database {DATABASE}, user {postgres.user}, password in")
        self._say(f"            {postgres.directory / 'password'}")
        self._say(f"  Kafka     {kafka.bootstrap_servers}")
        self._say(f"  Redis     {redis.url}")
        self._say(f"Run the bridge again:  cdc run {self._bridge}")
        self._say(f"Stop the servers:      {sys.executable} -m cdc.local stop --dir {self._stack.directory}")

    def _mirror(self, config: Config, shop: Shop, worker: Worker) -> Report:
        client = self._stack.redis.client()
        traffic = Traffic(shop)
        probe = Probe(shop, client)
        watch = Watch(worker, traffic, probe, client, self._seconds)
        with ExitStack() as running:
            running.callback(client.close)
            running.callback(probe.stop)
            traffic.start()
            running.callback(traffic.stop)
            frames = self._frames(watch, traffic, probe)
            if self._out.is_terminal:
                with Live(console=self._out, auto_refresh=False) as live:
                    for figures in frames:
                        live.update(picture(figures, self._route()), refresh=True)
            else:
                for figures in frames:
                    self._say(line(figures))
        self._say(
            f"The application has written {traffic.rows:,} row changes in {traffic.transactions:,} transactions,\n"
            f"  the largest of {traffic.largest:,} rows; tables truncated: {traffic.truncates}."
        )
        lag = probe.overall()
        if lag is not None:
            self._say(
                f"Commit → visible in Redis: p50 {lag.p50 * 1000:.1f} ms, p99 {lag.p99 * 1000:.1f} ms\n"
                f"  in {lag.count} measurements, from COMMIT's return to the value's appearance in HGET."
            )
        with self._step("Comparing every row with its hash, and every key with its row"):
            stopped = time.monotonic()
            report = wait_until_equal(config, CATCH_UP_S)
            took = time.monotonic() - stopped
        self._tell(report, took)
        return report

    def _frames(self, watch: Watch, traffic: Traffic, probe: Probe) -> Iterator[Figures]:
        """What to show, at each moment to show it, from the start of the bridge to the end of the time."""
        pause = FRAME_S if self._out.is_terminal else 1.0
        first_row_by = time.monotonic() + FIRST_ROW_S
        while (elapsed := watch.elapsed) is None or elapsed < self._seconds:
            watch.raise_error()
            if elapsed is None:
                if watch.has(KEY):
                    watch.begin()
                    probe.start()
                    traffic.schedule(self._seconds)
                elif time.monotonic() > first_row_by:
                    raise FatalError(f"no row came to Redis within {FIRST_ROW_S:.0f} s of the start of the bridge")
            yield watch.figures()
            time.sleep(pause)

    def _tell(self, report: Report, took: float) -> None:
        if not report.equal:
            self._say(report.as_text())
            self._out.print(f"[bold red]Redis does not equal Postgres[/] {took:.1f} s after the last write.")
            return
        for table in report.tables:
            self._say(f"  {table.table:<20} {table.rows:>7,} rows {table.fields:>9,} fields   equal")
        for skipped in report.not_compared:
            self._say(f"  {skipped.table:<20} not mirrored: {skipped.reason}".replace("; ", ";\n    ", 1))
        self._out.print(
            f"[bold green]Redis equals Postgres[/]: {len(report.tables)} tables, {report.rows:,} rows, "
            f"{report.fields:,} fields compared,\n  no key without a row; proved {took:.1f} s after the last write."
        )

    def _route(self) -> str:
        return " → ".join(_named(server.name, server.version) for server in self._stack.parts.values())

    def _say(self, text: str) -> None:
        self._out.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        if self._out.is_terminal:
            with self._out.status(f"{what} …"):
                yield
        else:
            yield
        self._say(f"{what}: {time.monotonic() - begun:.1f} s")


def _named(name: str, version: str) -> str:
    """``Postgres 18 (embedded)`` and ``18.6``: ``Postgres 18.6 (embedded)``."""
    words, bracket, rest = name.partition(" (")
    *most, last = words.split()
    head = most if last and version.startswith(last) else [*most, last]
    return f"{' '.join([*head, version])}{bracket}{rest}"


def _folder(directory: Path | None) -> Path:
    if directory is None:
        folder = Path(tempfile.mkdtemp(prefix="cdc-demo-"))
    else:
        folder = directory.absolute()
        if (folder / "stack").exists() or (folder / "bridge.yaml").exists():
            raise FatalError(f"{folder} has an earlier demo in it. Remove it, or choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # Postgres, which does not run as root, must reach its data below
    return folder


@contextmanager
def _stderr_to(path: Path, config: Config) -> Iterator[None]:
    """Send everything that the bridge's processes and libraries say on stderr to a file: the terminal is the view's."""
    sys.stderr.flush()
    saved = os.dup(2)
    with path.open("a", encoding="utf-8") as log:
        try:
            os.dup2(log.fileno(), 2)
            configure_logging("info", "json", config.secrets.redact, stream=log)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            configure_logging("critical", "json", config.secrets.redact)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
