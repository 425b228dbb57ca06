"""Before the stream: the server, the slot, and whether the stored position fits them.

Everything that could make a gap or a lie is found here and stops the task, naming the gap and the remedy
(EXACTNESS.md H2 to H5). Nothing is silently re-created.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cdc.errors import FatalError, Finding, GapError, RetriableError
from cdc.postgres.catalog import read_settings
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.pgoutput import format_lsn
from cdc.postgres.position import Reset, StoredPosition
from cdc.postgres.slots import SlotInfo, gap_text, read_slot, sized

__all__ = [
    "HOLDER_GRACE_S",
    "begin_at",
    "next_epoch",
    "origin_of",
    "publication_gap",
    "reset_remedy",
    "server_findings",
    "settings_of",
    "slot_of",
    "verify_ours",
    "verify_position",
    "verify_slot",
    "wait_for_slot",
]

HOLDER_GRACE_S: Final = 30.0
"""Waited beyond wal_sender_timeout for a slot in use: a dead host's walsender lives that long (H5)."""


STANDBY_SINCE: Final = 160000
"""Slots can be made and read on a standby."""
ORIGIN_SINCE: Final = 160000
"""START_REPLICATION takes the option origin."""
FAILOVER_SINCE: Final = 170000
"""Standbys can keep slots in step with their primary's."""


def server_findings(settings: Mapping[str, str], config: PostgresConfig, *, standby: bool) -> list[Finding]:
    """What the server's settings and version forbid."""
    findings = []
    version = int(settings.get("server_version_num", "0"))
    if standby and version < STANDBY_SINCE:
        findings.append(
            Finding(
                f"the server is a standby with Postgres {settings.get('server_version')}: decoding there needs 16",
                key="database.hostname",
                remedy="Connect to the primary",
            )
        )
    if config.publish_origin != "any" and version < ORIGIN_SINCE:
        findings.append(
            Finding(
                "publish.origin=none needs Postgres 16",
                key="publish.origin",
                remedy="Set it to any, or upgrade",
            )
        )
    if config.slot_failover and version < FAILOVER_SINCE:
        findings.append(
            Finding(
                f"slot.failover needs Postgres 17, the server has {settings.get('server_version')}",
                key="slot.failover",
                remedy="Set it to false, or upgrade the server",
            )
        )
    if settings.get("wal_level") != "logical":
        findings.append(
            Finding(
                f"wal_level is {settings.get('wal_level')}, logical replication needs logical",
                key="wal_level",
                remedy="ALTER SYSTEM SET wal_level = logical; then restart the server",
            )
        )
    if version < 140000:
        findings.append(
            Finding(
                f"the server is Postgres {settings.get('server_version')}, logical messages in the stream need 14",
                remedy="Upgrade the server",
            )
        )
    return findings


def verify_ours(slot: SlotInfo, config: PostgresConfig) -> None:
    """Stop when the slot of the connector's name is somebody else's."""
    name = config.slot
    if slot.slot_type != "logical" or slot.plugin != "pgoutput":
        raise FatalError(
            f"the replication slot {name} exists but is {slot.slot_type} with plugin {slot.plugin}; "
            "expected logical with pgoutput. Remedy: choose another slot.name"
        )
    if slot.database != config.database_dbname:
        raise FatalError(
            f"the replication slot {name} belongs to database {slot.database}, not {config.database_dbname}. "
            "Remedy: choose another slot.name"
        )


def verify_slot(
    slot: SlotInfo | None, config: PostgresConfig, stored: StoredPosition | None, wal_end: int | None = None
) -> None:
    """Stop when the slot is lost, foreign, or ahead of what is stored: `GapError` names the gap, up to ``wal_end``."""
    name = config.slot
    if slot is None:
        if stored is None:
            return
        before = str(stored.origin.get("slot", name))
        why = "Somebody dropped it" if before == name else f"The stored position was reached through the slot {before}"
        back = "" if before == name else f"set slot.name back to {before}; or "
        raise GapError(
            f"the replication slot {name} is gone, and changes {gap_text(stored.lsn, wal_end)} with it. "
            f"{why}. Remedy: {back}{reset_remedy(config)}"
        )
    verify_ours(slot, config)
    if slot.lost:
        since = f"changes {gap_text(stored.lsn, wal_end)} are lost" if stored else "it cannot be streamed"
        raise GapError(
            f"the replication slot {name} was invalidated by the server (wal_status lost): {since}. "
            f"The reason: {slot.lost_because}. Remedy: {reset_remedy(config)}"
        )
    if stored is not None and slot.confirmed_flush_lsn is not None and slot.confirmed_flush_lsn > stored.lsn:
        raise GapError(
            f"the replication slot {name} has confirmed {format_lsn(slot.confirmed_flush_lsn)}, beyond the stored "
            f"position {format_lsn(stored.lsn)}: the changes {gap_text(stored.lsn, slot.confirmed_flush_lsn)} are not "
            "in Kafka and will not be sent again. Somebody advanced or re-created the slot, or another consumer uses "
            f"it{_now_held(slot)}. Remedy: {reset_remedy(config)}"
        )


def _now_held(slot: SlotInfo) -> str:
    return f" (it is held by {slot.holder} now)" if slot.holder else ""


def reset_remedy(config: PostgresConfig) -> str:
    """What an operator does about changes that cannot be had any more."""
    return (
        f"cdc slot reset FILE --connector {config.name} makes the slot anew, reads every table again and removes from "
        "the topics, and so from the sinks, the rows that are gone"
    )


def publication_gap(error: Exception, config: PostgresConfig, lsn: int) -> GapError:
    """The publication was dropped, and may have been made anew since: the stream cannot get past that."""
    return GapError(
        f"{error}. The publication {config.publication} was dropped, and perhaps made anew, after {format_lsn(lsn)}: "
        f"Postgres can tell nothing from there on. Remedy: {reset_remedy(config)}"
    )


def verify_position(
    stored: StoredPosition,
    system: Mapping[str, Any],
    history: Callable[[int], str],
    config: PostgresConfig,
    *,
    standby: bool = False,
) -> None:
    """Stop when the stored position is not a place in this server's WAL (H4). A standby may still come to it."""
    origin = stored.origin
    if origin.get("system_identifier") != system["system_identifier"]:
        raise GapError(
            f"the stored position {format_lsn(stored.lsn)} belongs to the Postgres system "
            f"{origin.get('system_identifier')}, this server is {system['system_identifier']}: another cluster, or one "
            f"restored from elsewhere. Remedy: point the connector at the right server; or {reset_remedy(config)}"
        )
    timeline = int(origin.get("timeline", 0))
    if timeline > system["timeline"]:
        # Not a gap to be filled by reading again: all that was written since the promotion would be undone.
        raise FatalError(
            f"the stored position {format_lsn(stored.lsn)} is on timeline {timeline}, this server is on "
            f"{system['timeline']}: it is an old primary that came back after a standby had been promoted. "
            "Remedy: take it out of database.hostname, or make it a standby of the new primary"
        )
    if timeline != system["timeline"]:
        left = _left_at(history(system["timeline"]), timeline)
        if left is None or stored.lsn > left:
            where = (
                "unknown to this server"
                if left is None
                else f"which this server left at {format_lsn(left)}, {sized(stored.lsn - left)} of WAL before it"
            )
            raise GapError(
                f"the stored position {format_lsn(stored.lsn)} is on timeline {timeline}, {where}: this server "
                f"(timeline {system['timeline']}) was promoted without having received all that was streamed. "
                f"Remedy: {reset_remedy(config)}"
            )
    if stored.lsn > system["wal_flush"] and standby:
        raise RetriableError(
            f"this standby has the WAL up to {format_lsn(system['wal_flush'])}, the stored position is "
            f"{format_lsn(stored.lsn)}, {sized(stored.lsn - system['wal_flush'])} ahead: waiting for it to catch up"
        )
    if stored.lsn > system["wal_flush"]:
        raise GapError(
            f"the stored position {format_lsn(stored.lsn)} is beyond the end of the server's WAL "
            f"{format_lsn(system['wal_flush'])}, by {sized(stored.lsn - system['wal_flush'])}: it lost changes that "
            "were streamed (a restored backup, a standby that lagged, fsync off). "
            f"Remedy: {reset_remedy(config)}"
        )
    now = origin_of(system, config)
    changed = [key for key in ("publication", "options") if origin.get(key) != now[key]]
    if stored.open is not None and changed:
        was, is_ = ({key: place.get(key) for key in changed} for place in (origin, now))
        raise FatalError(
            f"the stream stopped inside a transaction with {was}; with {is_} its messages cannot be counted the same. "
            "Remedy: set publication.name and publish.origin back, let the transaction finish, then change them"
        )


def origin_of(system: Mapping[str, Any], config: PostgresConfig) -> dict[str, Any]:
    """What a position belongs to."""
    return {
        "system_identifier": system["system_identifier"],
        "timeline": system["timeline"],
        "slot": config.slot,
        "publication": config.publication,
        "options": {"proto_version": "1", "messages": "true"}
        | ({"origin": "none"} if config.publish_origin == "none" else {}),
    }


def begin_at(stored: StoredPosition | None, reset: Reset | None, lsn: int, origin: Mapping[str, Any]) -> StoredPosition:
    """Where the stream goes on: at what is stored, else at ``lsn``, in an epoch of its own where H2 wants one."""
    if stored is None:
        least = 0 if reset is None else reset.epoch
        return StoredPosition(next_epoch(least - 1), lsn, None, None, origin)
    same = all(stored.origin.get(key) == origin[key] for key in ("system_identifier", "timeline", "slot"))
    epoch = stored.epoch if same else next_epoch(stored.epoch)
    placed = stored.placed if same else 0
    return StoredPosition(epoch, stored.lsn, stored.open, stored.last_commit_lsn, origin, placed)


def next_epoch(stored_epoch: int) -> int:
    """An epoch above every position told so far (H2)."""
    return max(stored_epoch + 1, int(time.time()))


def wait_for_slot(
    read: Callable[[], SlotInfo | None],
    slot: str,
    sender_timeout_s: float,
    stopping: Callable[[], bool],
    tell: Callable[[str], None],
) -> None:
    """Wait until nobody holds the slot; `FatalError` naming the holder when it stays held (H5).

    ``tell`` is told what is waited for, and the empty text when it is over.
    """
    deadline = time.monotonic() + sender_timeout_s + HOLDER_GRACE_S
    pause = 0.1
    holder = ""
    while (info := read()) is not None and info.active_pid is not None:
        if holder != (holder := info.holder or f"pid {info.active_pid}"):
            tell(f"the replication slot {slot} is held by {holder}")
        if stopping():
            raise RetriableError(f"asked to stop while waiting for the replication slot {slot}")
        if time.monotonic() > deadline:
            raise FatalError(
                f"the replication slot {slot} is held by {holder}{_for(info.holder_seconds)}, waited "
                f"{sender_timeout_s + HOLDER_GRACE_S:.0f} s. Remedy: stop the other consumer, or choose another "
                f"slot.name; SELECT pg_terminate_backend({info.active_pid}); ends a session that is left over"
            )
        # Somebody else's session: nothing signals its end but the catalog.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        pause = min(pause * 2, 2.0)
    if holder:
        tell("")


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f" (for {seconds:.0f} s)"


def settings_of(connection: Connection) -> dict[str, str]:
    """The settings that decide whether and how streaming works."""
    return read_settings(
        connection,
        [
            "wal_level",
            "max_replication_slots",
            "max_wal_senders",
            "wal_sender_timeout",
            "server_version",
            "server_version_num",
            "max_slot_wal_keep_size",
            "hot_standby_feedback",
            "synchronized_standby_slots",
        ],
    )


def slot_of(connection: Connection, config: PostgresConfig) -> SlotInfo | None:
    """The connector's slot."""
    return read_slot(connection, config.slot)


def _left_at(history: str, timeline: int) -> int | None:
    """Where a timeline history file says that ``timeline`` was left."""
    for line in history.splitlines():
        fields = line.split("#", 1)[0].split()
        if len(fields) >= 2 and fields[0] == str(timeline):
            high, _, low = fields[1].partition("/")
            return (int(high, 16) << 32) | int(low, 16)
    return None
