"""Snapshots that signals ask for while the tables are streamed: accepted, held, gone on with, stopped, ended.

What was asked for is stored with its table's progress, in the transaction that stores the signal's own place: so it is
acted on once, and goes on after a crash. One table has one snapshot under way; others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import structlog

from cdc.errors import DataError
from cdc.postgres.chunks import Reading
from cdc.postgres.evolution import Evolution
from cdc.postgres.progress import AdHoc, SnapshotProgress
from cdc.postgres.selection import Names
from cdc.postgres.signals import WINDOW, Execute, Log, Order, Pause, Resume, Stop, read, read_message

__all__ = ["AdHocs", "Host"]

_log = structlog.get_logger(__name__)

OUTCOMES: Final = 50
"""Signals whose outcome is remembered."""
LONGEST_ID: Final = 200
"""Characters of a signal's id that count."""


class Host(Protocol):
    """Who reads the tables (`cdc.postgres.reading.Snapshots`)."""

    evolution: Evolution

    def idle(self, oid: int) -> bool:
        """Whether nothing of the table is being read, or swept."""

    def under_way(self, oid: int) -> AdHoc | None:
        """The snapshot whose rows are being read, or whose sweep is being done; not one of another reason."""

    def start_reading(self, reading: Reading) -> None:
        """Read these rows."""

    def stop_reading(self, oid: int) -> None:
        """Read no more of the table, and tell none of what was read."""


class AdHocs:
    """The snapshots that were asked for, of all tables of a source. For the task's thread.

    ``dirty`` says that `to_json` must be stored.
    """

    def __init__(self, host: Host, report: Callable[[str, Any], None]) -> None:
        self._host = host
        self._report = report
        self._outcomes: dict[str, dict[str, Any]] = {}
        self.dirty = False

    # -- what is stored -----------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What has become of the last signals, by id."""
        return {"outcomes": self._outcomes}

    def restore(self, stored: Mapping[str, Any] | None) -> None:
        """Take up what `to_json` said."""
        self._outcomes = {} if stored is None else dict(stored["outcomes"])
        if self._outcomes:
            self._report("signals", self._outcomes)

    # -- signals ------------------------------------------------------------------------------------

    def message(self, text: bytes, place: str) -> None:
        """A signal as one JSON object, read at ``place``."""
        try:
            identifier, kind, data = read_message(text)
        except DataError as error:
            self._refuse(place, "", place, str(error))
            return
        self.signal(identifier, kind, data, place)

    def signal(self, identifier: str, kind: str, data: Any, place: str) -> None:
        """Act on a signal. One that cannot be acted on is said and remembered, and changes nothing."""
        if kind in WINDOW or any(entry.get("place") == place for entry in self._outcomes.values()):
            return  # Debezium's own, or told again after a crash
        identifier = identifier[:LONGEST_ID] or place
        try:
            order = read(kind, data)
        except DataError as error:
            self._refuse(identifier, kind, place, str(error))
            return
        self._act(order, identifier, kind, place)

    def _act(self, order: Order, identifier: str, kind: str, place: str) -> None:
        if isinstance(order, Execute):
            self._execute(order, identifier, kind, place)
            return
        if isinstance(order, Log):
            _log.info("a signal says", message=order.message.replace("{}", place), signal=identifier)
        elif isinstance(order, Stop):
            self._stop(order, identifier)
        elif isinstance(order, Pause):
            self._pause()
        elif isinstance(order, Resume):
            self._resume()
        self._note(identifier, kind, place)

    def _execute(self, order: Execute, identifier: str, kind: str, place: str) -> None:
        tables = sorted(self._host.evolution.tables.values(), key=lambda progress: (progress.schema, progress.name))
        chosen = [progress for progress in tables if order.tables.match(progress.full_name)]
        lost = [name for name in order.shown if not any(Names([name]).match(table.full_name) for table in chosen)]
        lost += [
            "a condition"
            for names, where in order.conditions
            if not any(names.match(table.full_name) for table in chosen)
        ]
        if lost:
            known = ", ".join(progress.full_name for progress in tables[:10]) or "none"
            self._refuse(identifier, kind, place, f"{', '.join(lost)} matches no table; captured are {known}")
            return
        self._note(identifier, kind, place)
        for progress in chosen:
            if reason := self._unfit(progress):
                self._outcome(identifier, progress, "FAILED", 0, reason)
                continue
            where = order.condition(progress.full_name)
            asked = AdHoc(identifier, place, where, sweep=order.sweep, blocking=order.blocking)
            progress.adhoc.append(asked)
            self._host.evolution.dirty.add(progress.oid)
            self._outcome(identifier, progress, "RUNNING")
            _log.info("reading a table, as was asked for", table=progress.full_name, signal=identifier, where=where)
            self.go_on(progress)

    def _unfit(self, progress: SnapshotProgress) -> str:
        """Why the table's rows cannot be read beside its stream."""
        info = self._host.evolution.info(progress.oid)
        if progress.failed:
            return f"{progress.full_name} is not told: {progress.failed}"
        if info is not None and not info.streamed:
            return f"changes of {progress.full_name} are told under the names of its partitions: name those"
        if info is not None and not info.ordered:
            return f"{progress.full_name} has no key that its rows can be read by beside the stream"
        return ""

    def _stop(self, order: Stop, identifier: str) -> None:
        stopped = 0
        for progress in self._host.evolution.tables.values():
            if progress.adhoc and (order.tables is None or order.tables.match(progress.full_name)):
                stopped += len(progress.adhoc)
                self.drop(progress, "STOPPED", f"by the signal {identifier}")
        if not stopped:
            _log.warning("there is no snapshot to stop", signal=identifier, tables=list(order.shown))

    def _pause(self) -> None:
        for progress in self._host.evolution.tables.values():
            if self._host.under_way(progress.oid) is not None:
                self._host.stop_reading(progress.oid)
            for asked in progress.adhoc:
                asked.paused = True
                self._host.evolution.dirty.add(progress.oid)

    def _resume(self) -> None:
        for progress in self._host.evolution.tables.values():
            for asked in progress.adhoc:
                asked.paused = False
                self._host.evolution.dirty.add(progress.oid)
            self.go_on(progress)

    # -- the snapshot of one table ------------------------------------------------------------------

    def go_on(self, progress: SnapshotProgress) -> None:
        """Begin the table's next snapshot, or go on with it, if nothing else of the table is under way."""
        if not progress.adhoc or not progress.done or progress.failed or not self._host.idle(progress.oid):
            return
        asked = progress.adhoc[0]
        if not asked.paused:
            self._host.start_reading(
                Reading(
                    progress.oid,
                    progress.schema,
                    progress.name,
                    after=asked.after,
                    first=asked.rows == 0,
                    marked=not asked.since,
                    adhoc=asked,
                )
            )

    def superseded(self, progress: SnapshotProgress) -> None:
        """The whole table is read anew for another reason: what was asked for is done after it, from the beginning."""
        if progress.adhoc:
            progress.adhoc[0].start_over()

    def ended(self, progress: SnapshotProgress, asked: AdHoc) -> None:
        """All its rows are told, and its sweep is done."""
        progress.adhoc.remove(asked)
        self._host.evolution.dirty.add(progress.oid)
        self._outcome(asked.id, progress, "COMPLETED", asked.rows)
        _log.info("read a table, as was asked for", table=progress.full_name, signal=asked.id, rows=asked.rows)
        self.go_on(progress)

    def failed(self, progress: SnapshotProgress, asked: AdHoc, reason: str) -> None:
        """It could not be read to its end; the table is streamed as before."""
        progress.adhoc.remove(asked)
        self._host.evolution.dirty.add(progress.oid)
        self._outcome(asked.id, progress, "FAILED", asked.rows, reason)
        self.go_on(progress)

    def drop(self, progress: SnapshotProgress, state: str, reason: str) -> None:
        """Leave all snapshots of the table."""
        if not progress.adhoc:
            return
        if self._host.under_way(progress.oid) is not None:
            self._host.stop_reading(progress.oid)
        for asked in progress.adhoc:
            self._outcome(asked.id, progress, state, asked.rows, reason)
        progress.adhoc.clear()
        self._host.evolution.dirty.add(progress.oid)

    # -- what is said -------------------------------------------------------------------------------

    def _refuse(self, identifier: str, kind: str, place: str, reason: str) -> None:
        _log.error("a signal is refused", signal=identifier, type=kind, place=place, reason=reason)
        self._note(identifier, kind, place, reason)

    def _note(self, identifier: str, kind: str, place: str, error: str = "") -> None:
        self._outcomes.pop(identifier, None)
        entry = {"type": kind, "place": place, "tables": {}}
        self._outcomes[identifier] = entry | ({"error": error} if error else {})
        while len(self._outcomes) > OUTCOMES:
            del self._outcomes[next(iter(self._outcomes))]
        self._changed()

    def _outcome(
        self, identifier: str, progress: SnapshotProgress, state: str, rows: int = 0, reason: str = ""
    ) -> None:
        if state == "FAILED":
            told = {"table": progress.full_name, "signal": identifier, "reason": reason}
            _log.error("a snapshot that was asked for has failed; the table is streamed as before", **told)
        elif state == "STOPPED":
            _log.info("a snapshot was stopped", table=progress.full_name, signal=identifier, rows=rows)
        entry = self._outcomes.setdefault(identifier, {"type": "execute-snapshot", "tables": {}})
        entry["tables"][progress.full_name] = {"state": state, "rows": rows, **({"reason": reason} if reason else {})}
        self._changed()

    def _changed(self) -> None:
        self.dirty = True
        self._report("signals", self._outcomes)
