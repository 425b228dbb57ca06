"""What a start makes of a table: how far its reading has come, and whether that still counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc.postgres.captured import is_hidden_otherwise, selection_of
from cdc.postgres.catalog import TableInfo
from cdc.postgres.catalog_view import NamedTable
from cdc.postgres.config import PostgresConfig
from cdc.postgres.progress import SnapshotProgress

__all__ = ["Start", "take_up"]


@dataclass(frozen=True, slots=True)
class Start:
    """A table at a start. A ``fresh`` progress must be stored.

    One that is to be read ``again`` is read from a marker in the stream on; with a ``gap``, changes of it were missed.
    ``hidden`` are the columns that the settings leave out or mask now.
    """

    progress: SnapshotProgress
    hidden: dict[str, str]
    fresh: bool = False
    again: bool = False
    gap: bool = False


def take_up(
    table: TableInfo,
    stored: Mapping[str, Any] | None,
    now: NamedTable | None,
    config: PostgresConfig,
    *,
    gap: bool,
    since: str,
) -> Start:
    """What is to be done with the table, of which ``stored`` was stored and ``now`` is seen in the catalog.

    ``since`` is a position before all that the stream will tell and behind all that was ever told, if what was told
    does not count (`cdc.postgres.reading.Snapshots.plan`).
    """
    progress = SnapshotProgress(table.oid, table.schema, table.name)
    progress.fingerprint = None if now is None else now.fingerprint
    if stored is not None:
        if config.snapshot_mode == "always" and stored.get("snapshot") == "done":
            progress.restore_adhoc(stored)
        else:
            progress.restore(stored)
    hidden = selection_of(table, config.selection)
    anew = bool(since) and not progress.failed  # a failed table is read again once it is mended
    if anew and stored is not None:
        progress.start_over(since if table.key else "", None if now is None else now.fingerprint)
        if progress.adhoc:
            progress.adhoc[0].start_over()
    elif anew:
        progress.since = since if table.key else ""
    fresh = stored is None or anew
    if fresh:
        progress.selection = hidden
        # Stored before the first row is told: the fingerprint must be as old as that.
        progress.done = config.snapshot_mode == "no_data" or not config.reads_rows(table.schema, table.name)
        if progress.done:
            progress.since = ""
    if table.ordered and not anew:
        gap = stored is not None and (gap or _starts_over(stored, progress, now))
        then = progress.selection
        # Rows that were told with other columns or masks are told again: what is hidden now is to go.
        if gap or (then is not None and is_hidden_otherwise(table, then, hidden)):
            return Start(progress, hidden, fresh, again=True, gap=gap)
    elif not table.ordered and not progress.done:
        progress.rows, progress.after = 0, None
    return Start(progress, hidden, fresh)


def _starts_over(stored: Mapping[str, Any], progress: SnapshotProgress, now: NamedTable | None) -> bool:
    """Whether nothing of what was read of the table before counts."""
    if stored["snapshot"] in {"failed", "stopped"} or stored.get("oid", progress.oid) != progress.oid:
        return True
    then = progress.fingerprint
    return not progress.done and now is not None and then is not None and now.fingerprint.key != then.key
