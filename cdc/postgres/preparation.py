"""Before the stream: the server, the slot, and whether the stored position fits them.

Everything that could make a gap or a lie is found here and stops the task, naming the gap and the remedy
(EXACTNESS.md H2 to H5). Nothing is silently re-created.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cdc.errors import FatalError, Finding, RetriableError
from cdc.postgres.catalog import SlotInfo, read_settings, read_slot
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.pgoutput import format_lsn
from cdc.postgres.position import StoredPosition

__all__ = [
    "HOLDER_GRACE_S",
    "next_epoch",
    "origin_of",
    "server_findings",
    "verify_position",
    "verify_slot",
]

HOLDER_GRACE_S: Final = 30.0
"""Waited beyond wal_sender_timeout for a slot in use: a dead host's walsender lives that long (H5)."""


def server_findings(settings: Mapping[str, str]) -> list[Finding]:
    """What the server's settings forbid."""
    findings = []
    if settings.get("wal_level") != "logical":
        findings.append(
            Finding(
                f"wal_level is {settings.get('wal_level')}, logical replication needs logical",
                key="wal_level",
                remedy="ALTER SYSTEM SET wal_level = logical; then restart the server",
            )
        )
    if int(settings.get("server_version_num", "0")) < 140000:
        findings.append(
            Finding(
                f"the server is Postgres {settings.get('server_version')}, logical messages in the stream need 14",
                remedy="Upgrade the server",
            )
        )
    return findings


def verify_slot(slot: SlotInfo | None, config: PostgresConfig, stored: StoredPosition | None) -> None:
    """Stop when the slot is lost, foreign, or ahead of what is stored: `FatalError` names the gap."""
    name = config.slot
    if slot is None:
        if stored is None:
            return
        raise FatalError(
            f"the replication slot {name} is gone, and changes after {format_lsn(stored.lsn)} with it. "
            "Remedy: find out who dropped it, then delete this connector's offsets to take a new snapshot"
        )
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
    if slot.wal_status == "lost":
        since = f"changes after {format_lsn(stored.lsn)} are lost" if stored else "it cannot be streamed"
        raise FatalError(
            f"the replication slot {name} was invalidated by the server (wal_status lost): {since}. Remedy: raise "
            "max_slot_wal_keep_size, drop the slot and delete this connector's offsets to take a new snapshot"
        )
    if stored is not None and slot.confirmed_flush_lsn is not None and slot.confirmed_flush_lsn > stored.lsn:
        raise FatalError(
            f"the replication slot {name} has confirmed {format_lsn(slot.confirmed_flush_lsn)}, beyond the stored "
            f"position {format_lsn(stored.lsn)}: the changes between are not in Kafka and will not be sent "
            "again. Somebody advanced or re-created the slot, or another consumer uses it. "
            "Remedy: delete this connector's offsets to take a new snapshot"
        )


def verify_position(
    stored: StoredPosition, system: Mapping[str, Any], history: Callable[[int], str], config: PostgresConfig
) -> None:
    """Stop when the stored position is not a place in this server's WAL (H4)."""
    origin = stored.origin
    if origin.get("system_identifier") != system["system_identifier"]:
        raise FatalError(
            f"the stored position belongs to the Postgres system {origin.get('system_identifier')}, this server is "
            f"{system['system_identifier']}: another cluster, or one restored from elsewhere. "
            "Remedy: point the connector at the right server, or delete its offsets to take a new snapshot"
        )
    timeline = int(origin.get("timeline", 0))
    if timeline != system["timeline"]:
        left = _left_at(history(system["timeline"]), timeline)
        if left is None or stored.lsn > left:
            where = "unknown to this server" if left is None else f"which this server left at {format_lsn(left)}"
            raise FatalError(
                f"the stored position {format_lsn(stored.lsn)} is on timeline {timeline}, {where}: this server was "
                "promoted without having received all that was streamed. "
                "Remedy: delete this connector's offsets to take a new snapshot"
            )
    if stored.lsn > system["wal_flush"]:
        raise FatalError(
            f"the stored position {format_lsn(stored.lsn)} is beyond the end of the server's WAL "
            f"{format_lsn(system['wal_flush'])}: it lost changes that were streamed (a restored backup, a standby "
            "that lagged, fsync off). Remedy: delete this connector's offsets to take a new snapshot"
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
                f"the replication slot {slot} is held by {holder}, waited "
                f"{sender_timeout_s + HOLDER_GRACE_S:.0f} s. Remedy: stop the other consumer, or choose another "
                f"slot.name; SELECT pg_terminate_backend({info.active_pid}); ends a session that is left over"
            )
        # Somebody else's session: nothing signals its end but the catalog.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        pause = min(pause * 2, 2.0)
    if holder:
        tell("")


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
