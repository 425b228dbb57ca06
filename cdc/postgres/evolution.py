"""What to do when the catalog shows that a table is not what the stream told: EXACTNESS.md H12, DESIGN.md §4.

Looks at the catalog (`cdc.postgres.watch`) come in; what comes out is which tables are read again, held back or
left. All I/O is behind `Actions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from cdc.errors import RetriableError
from cdc.postgres.captured import table_findings
from cdc.postgres.catalog import TableInfo
from cdc.postgres.catalog_view import NamedTable
from cdc.postgres.config import PostgresConfig
from cdc.postgres.fingerprint import Difference, Fingerprint, difference
from cdc.postgres.preparation import reset_remedy
from cdc.postgres.progress import SnapshotProgress
from cdc.postgres.tables import key_is_gone
from cdc.postgres.told_columns import ToldColumns
from cdc.postgres.watch import CatalogView

__all__ = ["Actions", "Evolution"]

_log = structlog.get_logger(__name__)
_NOT_AGAIN = (
    "schema.resnapshot.enabled is false, snapshot.mode no_data, or snapshot.include.collection.list leaves it out"
)


class Actions(Protocol):
    """What the task does to the stream and the snapshots."""

    def hold(self, oid: int) -> None:
        """Leave out the table's changes, and stop reading it."""

    def renew(self, oid: int) -> None:
        """The table is not what it was: tell its changes as it is now."""

    def leave(self, oid: int) -> None:
        """The table is not captured any more, under this name: stop reading it."""

    def read(self, progress: SnapshotProgress, table: TableInfo) -> None:
        """Read a table that was not read before."""

    def read_again(self, progress: SnapshotProgress) -> None:
        """Read a table again, from a point in the stream on that `Evolution.begun` is told of."""

    def key_changed(self, progress: SnapshotProgress) -> None:
        """By policy, delete every key of the table's topic and read it again; it was failed."""

    def publish(self, tables: Mapping[int, TableInfo]) -> None:
        """Add tables to the publication."""


class Evolution:
    """The captured tables over time. For one thread.

    ``tables`` are those that are told, by OID; ``dirty`` the OIDs whose progress must be stored. ``told`` are the full
    names of tables whose rows were told at any time, under whatever OID.
    """

    def __init__(
        self,
        config: PostgresConfig,
        actions: Actions,
        report: Callable[[str, Any], None],
        told: set[str],
        server_version: int,
    ) -> None:
        self._config = config
        self._actions = actions
        self._report = report
        self._told = told
        self._server_version = server_version
        self.tables: dict[int, SnapshotProgress] = {}
        self.dirty: set[int] = set()
        self.left: dict[str, Mapping[str, Any]] = {}
        """What is to be stored of tables that are not told any more, by full name."""
        self._infos: dict[int, TableInfo] = {}
        self._seen: dict[int, Fingerprint] = {}
        self._pending: dict[int, Fingerprint] = {}
        """Differences seen once: acted on when the next look sees the same."""
        self._beginning: dict[int, tuple[Fingerprint | None, bool]] = {}
        """Tables about to be read again: fingerprint as of then, and whether ghosts are to be removed after it."""
        self._failed_at: dict[int, Fingerprint | None] = {}
        self._broken: set[int] = set()
        self._columns = ToldColumns()
        self._offered: set[int] = set()
        self._notes: dict[str, str] = {}

    # -- what happened ------------------------------------------------------------------------------

    def saw(self, view: CatalogView) -> None:
        """Take note of what the catalog shows, without consequences."""
        self._infos.update(view.infos)
        self._seen.update((oid, table.fingerprint) for oid, table in view.tables.items())

    def look(self, view: CatalogView) -> None:
        """Compare what the catalog shows with what is known of the tables."""
        self.saw(view)
        for oid, progress in list(self.tables.items()):
            now = view.tables.get(oid)
            if now is None or (now.schema, now.name) != (progress.schema, progress.name):
                self._leave(progress, now)
            else:
                self._compare(progress, now.fingerprint)
        for oid, now in view.tables.items():
            if oid not in self.tables:
                self._arrive(oid, now, view.unpublished.get(oid, ""))

    def info(self, oid: int) -> TableInfo | None:
        """The table as the catalog had it when it changed last."""
        return self._infos.get(oid)

    def fail(self, oid: int, reason: str, *, queued: bool = False) -> None:
        """Tell the table's changes no more, until it is read again; ``queued`` are told still, to be put aside."""
        progress = self.tables.get(oid)
        if progress is None:
            return
        self._failed_at[oid] = self._seen.get(oid)
        if progress.failed == reason and progress.queued == queued:
            return
        progress.failed, progress.queued = reason, queued
        if queued:
            _log.error("changes of a table go to the dead letter queue", table=progress.full_name, reason=reason)
            self._note(progress.full_name, f"DEAD LETTERS: {reason}")
        else:
            _log.error("a table is not told any more; the others are", table=progress.full_name, reason=reason)
            self._note(progress.full_name, f"FAILED: {reason}")
        self._beginning.pop(oid, None)
        self._pending.pop(oid, None)
        self._broken.discard(oid)
        self.dirty.add(oid)
        if queued:
            self._actions.leave(oid)
        else:
            self._actions.hold(oid)

    def lost(self, oid: int, reason: str) -> None:
        """The table could not be read to its end. The next look tells why; if it does not, the table is read again."""
        progress = self.tables.get(oid)
        if progress is not None and not progress.failed:
            _log.warning("reading a table was broken off", table=progress.full_name, cause=reason)
            self._beginning.pop(oid, None)
            self._broken.add(oid)

    def untold(self, oid: int, reason: str) -> None:
        """Rows of the table were told as they are not. It is read again, if the next look does not stop it."""
        progress = self.tables.get(oid)
        if progress is None or progress.failed or oid in self._broken:
            return
        if why := self._not_again(progress):
            self._differ(progress, reason, why)
        else:
            _log.info("reading a table again", table=progress.full_name, reasons=reason, removing_ghosts=True)
            self._broken.add(oid)

    def telling(self, oid: int, names: tuple[str, ...]) -> None:
        """Rows of the table are told with these columns."""
        progress = self.tables.get(oid)
        if progress is not None:
            self._columns.telling(oid, names, progress.fingerprint)

    def begin(self, progress: SnapshotProgress, *, sweep: bool) -> None:
        """Read the table again, and with ``sweep`` remove the keys that are not found then."""
        self._broken.discard(progress.oid)
        self._beginning[progress.oid] = self._seen.get(progress.oid, progress.fingerprint), sweep
        self._actions.read_again(progress)

    def begun(self, oid: int, position: str) -> SnapshotProgress | None:
        """The stream has passed the point from which the table is read again; ``None`` if it is not to be any more."""
        progress = self.tables.get(oid)
        if progress is None or oid not in self._beginning:
            return None
        fingerprint, sweep = self._beginning.pop(oid)
        self._columns.forget(oid)
        progress.fingerprint = fingerprint
        progress.after, progress.rows, progress.done = None, 0, False
        progress.since = position if sweep or progress.since or progress.failed else ""
        self.dirty.add(oid)
        return progress

    def accepted(self, progress: SnapshotProgress) -> None:
        """What a table was failed for is no more: read it again."""
        if progress.failed and progress.oid not in self._beginning:
            self.begin(progress, sweep=True)

    def mended(self, progress: SnapshotProgress) -> None:
        """A failed table is told again."""
        progress.failed, progress.queued = "", False
        self._failed_at.pop(progress.oid, None)
        self._note(progress.full_name, "")
        self.dirty.add(progress.oid)

    # -- tables that are told -----------------------------------------------------------------------

    def _compare(self, progress: SnapshotProgress, now: Fingerprint) -> None:
        oid = progress.oid
        if undone := self._columns.undone(oid, now):
            self.untold(oid, f"its columns were {', '.join(undone)} for a time")
        if now == progress.fingerprint and progress.done and not progress.failed and oid not in self._broken:
            self._pending.pop(oid, None)
            return
        problem = self._problem(progress, now)
        changed = "" if problem else self._key_change(progress, now)
        if problem:
            self.fail(oid, problem)
        elif changed:
            if oid not in self._beginning or self._config.schema_key_change_handling_mode != "renew":
                self.fail(oid, changed)
                self._actions.key_changed(progress)
        elif progress.failed:
            if oid not in self._beginning and now != self._failed_at.get(oid):
                self._failed_at[oid] = now
                self.begin(progress, sweep=True)
        elif oid in self._broken:
            self.begin(progress, sweep=True)
        elif progress.done and oid not in self._beginning:
            self._differs(progress, now)

    def _differs(self, progress: SnapshotProgress, now: Fingerprint) -> None:
        oid = progress.oid
        found = Difference() if progress.fingerprint is None else difference(progress.fingerprint, now)
        if not found:
            self._accept(progress, now)
            return
        info = self._infos.get(oid)
        if info is not None and not info.streamed:
            self._accept(progress, now)  # its partitions are told, not it
            return
        if self._pending.get(oid) != now:
            self._pending[oid] = now  # a migration has several statements: wait for the last
            return
        self._actions.renew(oid)
        if progress.failed:
            return  # it cannot be told as it is now
        reasons = "; ".join(found.reasons)
        if why := self._not_again(progress):
            self._differ(progress, reasons, why)
            self._accept(progress, now)
            return
        _log.info("reading a table again", table=progress.full_name, reasons=reasons, removing_ghosts=found.vanished)
        self.begin(progress, sweep=found.vanished)

    def _not_again(self, progress: SnapshotProgress) -> str:
        """Why the table is not read again; empty if it can be."""
        if not self._config.reads_again(progress.schema, progress.name):
            return _NOT_AGAIN
        info = self._infos.get(progress.oid)
        return "" if info is not None and info.ordered else "it has no key that rows can be read by"

    def _differ(self, progress: SnapshotProgress, reasons: str, why: str) -> None:
        _log.warning(
            "rows of a table changed without being in the WAL, and it is not read again",
            table=progress.full_name,
            reasons=reasons,
            because=why,
        )
        self._note(progress.full_name, f"rows differ until they change: {reasons}; not read again because {why}")

    def _accept(self, progress: SnapshotProgress, now: Fingerprint) -> None:
        self._pending.pop(progress.oid, None)
        self._columns.accepted(progress.oid, now)
        progress.fingerprint = now
        self.dirty.add(progress.oid)

    def _problem(self, progress: SnapshotProgress, now: Fingerprint) -> str:
        """Why the table cannot be told as it is now."""
        name, publication = progress.full_name, self._config.publication
        info = self._infos.get(progress.oid)
        if info is not None and not info.streamed:
            return ""  # its partitions are told, not it
        if not now.published:
            return (
                f"{name} was taken out of the publication {publication}: its changes are not told. Remedy: ALTER "
                f'PUBLICATION "{publication}" ADD TABLE "{progress.schema}"."{progress.name}"; it is then read again'
            )
        if problem := self._told_less(info, now):
            return problem
        findings = [] if info is None else table_findings([info], self._config, self._server_version)
        if findings:
            return "; ".join(str(finding) for finding in findings)
        old = progress.fingerprint
        if old is not None and bool(old.key) != bool(now.key):
            if old.key:
                return key_is_gone(name)
            return (
                f"{name} has got a key, but its topic is one without keys and is not compacted. Remedy: stop "
                "the connector, delete the topic and the connector's offsets, and let it take a snapshot"
            )
        return ""

    def _told_less(self, info: TableInfo | None, now: Fingerprint) -> str:
        """What the publication leaves out of the table's changes, or tells under another name."""
        config, publication = self._config, self._config.publication
        operations = zip("cudt", now.published[-1].split(), strict=False)
        lost = [letter for letter, on in operations if on == "f" and letter not in config.skipped]
        if lost:
            return (
                f"the publication {publication} leaves out {', '.join(lost)} of c, u, d, t. Remedy: ALTER PUBLICATION "
                f"\"{publication}\" SET (publish = 'insert, update, delete, truncate'); the table is then read again"
            )
        wanted = config.publish_via_partition_root
        if wanted is not None and wanted != now.rooted and info is not None and (info.kind == "p" or info.ancestors):
            return (
                f"the publication {publication} tells changes of partitions under other names than this connector. "
                f'Remedy: ALTER PUBLICATION "{publication}" SET (publish_via_partition_root = {str(wanted).lower()}); '
                "the table is then read again"
            )
        return ""

    def _key_change(self, progress: SnapshotProgress, now: Fingerprint) -> str:
        """How the record key is another than that of the rows told; what types mean for its bytes, converters know."""
        old = progress.fingerprint
        if old is None or (old.key_names() == now.key_names() and (old.oid != now.oid or old.key == now.key)):
            return ""
        was, is_ = ", ".join(old.key_names()), ", ".join(now.key_names())
        return (
            f"the record key of {progress.full_name} was ({was}) and is ({is_}): its rows would get new keys beside "
            "those they have. Remedy: change the key back, and the table is read again; or set "
            "schema.key.change.handling.mode=renew, which deletes every key of its topic first; or leave the table out "
            "(table.exclude.list)"
        )

    def _leave(self, progress: SnapshotProgress, now: NamedTable | None) -> None:
        oid = progress.oid
        what = "was dropped, or is not chosen any more" if now is None else f"is now {now.schema}.{now.name}"
        _log.warning("a table is not captured any more", table=progress.full_name, reason=what)
        self._note(progress.full_name, f"STOPPED: it {what}")
        self._actions.leave(oid)
        self.left[progress.full_name] = {**progress.to_json(), "snapshot": "stopped"}
        self._told.add(progress.full_name)
        del self.tables[oid]
        for known in (self._beginning, self._pending, self._seen, self._failed_at):
            known.pop(oid, None)
        self._columns.forget(oid)
        self._broken.discard(oid)
        self.dirty.discard(oid)

    # -- tables that are new ------------------------------------------------------------------------

    def _arrive(self, oid: int, now: NamedTable, refused: str) -> None:
        info = self._infos.get(oid)
        if info is None:
            return  # it went away again
        problem = refused or self._unfit(info)
        if not problem and not now.fingerprint.published:
            if self._config.publication_autocreate_mode == "disabled":
                problem = (
                    f"it is not in the publication {self._config.publication}, and publication.autocreate.mode is "
                    f'disabled. Run: ALTER PUBLICATION "{self._config.publication}" ADD TABLE '
                    f'"{info.schema}"."{info.name}";'
                )
            elif oid not in self._offered:
                self._offered.add(oid)
                self._actions.publish({oid: info})
                return
        if problem:
            if self._note(info.full_name, f"NOT CAPTURED: {problem}"):
                _log.warning("a new table is not captured", table=info.full_name, reason=problem)
            return
        if not now.fingerprint.published:
            return
        if not info.ordered and self._config.reads_rows(info.schema, info.name):
            raise RetriableError(
                f"the table {info.full_name} is new and has no key to read it by: starting again, to read it in one "
                "snapshot"
            )
        self._take_in(info, now.fingerprint)

    def _unfit(self, info: TableInfo) -> str:
        """Why a new table cannot be captured."""
        findings = [str(finding) for finding in table_findings([info], self._config, self._server_version)]
        topic = self._config.topic(info.schema, info.name)
        findings += [
            f"it would share the topic {topic} with {other.full_name}"
            for other in self.tables.values()
            if self._config.topic(other.schema, other.name) == topic
        ]
        return "; ".join(findings)

    def _take_in(self, info: TableInfo, now: Fingerprint) -> None:
        progress = SnapshotProgress(info.oid, info.schema, info.name, fingerprint=now)
        self.tables[info.oid] = progress
        told = info.full_name in self._told
        self._note(info.full_name, "")
        if not told:
            _log.info("capturing a new table", table=info.full_name)
            reads = self._config.reads_rows(info.schema, info.name)
            progress.done = self._config.snapshot_mode == "no_data" or not reads
            self.dirty.add(info.oid)
            if not progress.done:
                self._actions.read(progress, info)
        elif self._config.reads_again(info.schema, info.name):
            _log.info("capturing a table anew", table=info.full_name, reasons="it was made anew, or left for a time")
            progress.done = True
            self.begin(progress, sweep=True)
        else:
            self.fail(
                info.oid,
                f"{info.full_name} was made anew, or was not told for a time, and is not read again ({_NOT_AGAIN}): "
                f"rows that are gone would stay in the sinks. Remedy: {reset_remedy(self._config)}",
            )

    def _note(self, table: str, text: str) -> bool:
        """Say something of a table in the status; whether that is new."""
        if self._notes.get(table, "") == text:
            return False
        self._notes[table] = text
        if not text:
            del self._notes[table]
        self._report("tables", dict(self._notes))
        return True
