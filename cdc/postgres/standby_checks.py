"""What a standby needs to be decoded on, and a failover slot to survive its primary."""

from __future__ import annotations

from collections.abc import Mapping

from cdc.errors import Finding
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.selection import split_list

__all__ = ["failover_findings", "feedback_findings"]

_PHYSICAL = "select slot_name from pg_replication_slots where slot_type = 'physical' and not temporary order by 1"


def feedback_findings(settings: Mapping[str, str], *, standby: bool) -> list[Finding]:
    """Whether a standby tells its primary which rows of the catalogs its slots still need."""
    if not standby or settings.get("hot_standby_feedback") == "on":
        return []
    return [
        Finding(
            "hot_standby_feedback is off on this standby: its primary removes rows of the catalogs that the slot "
            "needs, and the slot is then lost",
            key="database.hostname",
            remedy="On the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf(); and have a "
            "primary_slot_name, so that it holds while the standby is away",
        )
    ]


def failover_findings(
    connection: Connection, config: PostgresConfig, settings: Mapping[str, str], *, standby: bool
) -> list[Finding]:
    """Whether the stream waits for the standbys that may be promoted: else it can be ahead of the one that is."""
    if not config.slot_failover or standby or "synchronized_standby_slots" not in settings:
        return []
    awaited = set(split_list(settings["synchronized_standby_slots"]))
    slots = [row[0] for row in connection.execute(_PHYSICAL).fetchall()]
    lacking = [slot for slot in slots if slot not in awaited]
    if slots and not lacking:
        return []
    if not slots:
        return [
            Finding(
                "slot.failover is set, and no standby replicates through a physical slot: none can take over",
                key="slot.failover",
                remedy="Give the standby a primary_slot_name and sync_replication_slots = on, and name that slot in "
                "synchronized_standby_slots on this server",
            )
        ]
    wanted = ", ".join(sorted(awaited | set(lacking)))
    return [
        Finding(
            f"synchronized_standby_slots lacks {', '.join(lacking)}: changes can be told before that standby has them, "
            "and if it is promoted, the stored position is ahead of it",
            key="slot.failover",
            remedy=f"ALTER SYSTEM SET synchronized_standby_slots = '{wanted}'; SELECT pg_reload_conf(); if that is a "
            "standby to be promoted",
        )
    ]
