"""``cdc slot``: the replication slots of the Postgres sources, shown; and made anew after a gap.

What a reset does is stored in place of the source's position (`cdc.postgres.position.Reset`) and done by the task that
starts next: it makes the slot anew, raises the epoch (EXACTNESS.md H2), reads every table again beside the stream, and
deletes the keys that are older than that from the topics (H11), so that no rebuild brings back what is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cdc.config import Config, ConnectorSpec
from cdc.errors import CdcError, ConfigError, Finding
from cdc.operate.offsets import change_offsets, show_offsets, source_of
from cdc.postgres import preparation
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import connect
from cdc.postgres.connector import PostgresSourceConnector
from cdc.postgres.pgoutput import format_lsn
from cdc.postgres.position import Reset, StoredPosition
from cdc.postgres.server import Server
from cdc.postgres.slots import SlotInfo, gap_text, read_slot, sized, wal_now

__all__ = ["ResetPlan", "SlotReport", "plan_reset", "render", "render_reset", "reset_slot", "show_slots"]


@dataclass(slots=True)
class SlotReport:
    """One source's slot. LSNs are in Postgres's text form, sizes in bytes; ``None`` where nothing is known."""

    connector: str
    slot: str
    exists: bool = False
    active: bool = False
    pid: int | None = None
    holder: str = ""
    restart_lsn: str | None = None
    confirmed_flush_lsn: str | None = None
    wal_end: str | None = None
    retained_bytes: int | None = None
    """WAL that the server keeps for it."""
    wal_status: str | None = None
    safe_wal_size: int | None = None
    """WAL that can still be written before the slot is in danger of being lost; ``None``: no limit is set."""
    invalidation_reason: str | None = None
    failover: bool = False
    synced: bool = False
    stored_lsn: str | None = None
    """The position in Kafka."""
    behind_bytes: int | None = None
    """WAL between the stored position and the WAL's end: what would be lost with the slot."""
    unconfirmed_bytes: int | None = None
    """WAL between what the slot has confirmed and the stored position; negative is a gap."""
    would_be_lost: str = ""
    problems: list[str] = field(default_factory=list)
    """What is wrong, each with its remedy."""


@dataclass(slots=True)
class ResetPlan:
    """What a reset is going to do, to be shown before it is done."""

    connector: str
    slot: str
    gap: str
    tables: list[str]
    unread: str = ""
    """Why rows are not read again, if they are not."""

    def text(self) -> str:
        """For a person."""
        tables = ", ".join(self.tables) or "every captured table"
        again = (
            f"* rows are NOT read again: {self.unread}. What changed in the gap stays unknown"
            if self.unread
            else f"* read again beside the stream, keys of rows that are gone deleted from the topics: {tables}"
        )
        return (
            f"Resetting {self.connector}:\n"
            f"* the replication slot {self.slot} is dropped and made anew at the next start\n"
            f"* given up: {self.gap}. The single changes in it are never told; the rows as they are then will be\n"
            f"{again}"
        )


def show_slots(config: Config, connector: str | None = None) -> list[SlotReport]:
    """The slot of every Postgres source, or of one. `ConfigError` when there is no such source."""
    if connector is not None:
        source_of(config, connector)
    return [
        _report(config, spec)
        for spec in config.connectors
        if isinstance(spec.connector, PostgresSourceConnector) and connector in (None, spec.name)
    ]


def plan_reset(config: Config, connector: str) -> ResetPlan:
    """What `reset_slot` would do."""
    spec = source_of(config, connector)
    settings = _settings(spec)
    offsets = show_offsets(config, connector)
    stored, tables = _stored(offsets, spec)
    lsn = stored.lsn if isinstance(stored, (StoredPosition, Reset)) else None
    try:
        with connect(settings.conninfo(), "cdc/slot") as connection:
            end: int | None = wal_now(connection)
    except CdcError:
        end = None  # it may well be away: the reset is done at its next start
    gap = "changes that were not told yet" if lsn is None else f"changes {gap_text(lsn, end)}"
    unread = "snapshot.mode is no_data" if settings.snapshot_mode == "no_data" else ""
    return ResetPlan(connector, settings.slot, gap, tables, unread)


def reset_slot(config: Config, connector: str) -> dict[str, Any]:
    """Have the next start of the source begin anew; what was stored in place of its position."""
    spec = source_of(config, connector)
    partition = _partition(spec)
    written: dict[str, Any] = {}

    def change(found: Mapping[str, Any]) -> Mapping[str, Any]:
        stored, _ = _stored(found, spec)
        epoch = 0 if stored is None else stored.epoch
        lsn = None if stored is None else stored.lsn
        written[partition] = Reset(preparation.next_epoch(epoch), lsn).to_json()
        # All rows are told anew, so that it does not matter what the topics were before (EXACTNESS.md H17).
        topics = [key for key in found if "topic" in json.loads(key)[1]]
        return {**written, **dict.fromkeys(topics)}

    change_offsets(config, connector, change)
    return written


def render(reports: list[SlotReport], output: Literal["text", "json"]) -> str:
    """For a person, or for a program."""
    if output == "json":
        return json.dumps({"slots": [asdict(report) for report in reports]}, indent=2)
    return "\n\n".join(_as_text(report) for report in reports) or "no Postgres sources"


def render_reset(written: Mapping[str, Any], output: Literal["text", "json"]) -> str:
    """What was written."""
    if output == "json":
        told = [{"partition": json.loads(key)[1], "offset": value} for key, value in written.items()]
        return json.dumps({"offsets": told}, indent=2)
    return (
        "reset: the slot is made anew and every table read again when the connector starts; one that runs has been "
        "fenced off, and does so at once"
    )


def _settings(spec: ConnectorSpec) -> PostgresConfig:
    if not isinstance(spec.connector, PostgresSourceConnector):
        raise ConfigError([Finding(f"{spec.name} is not a Postgres source: it has no replication slot")])
    return spec.connector.settings


def _partition(spec: ConnectorSpec) -> str:
    return json.dumps([spec.name, {"server": _settings(spec).topic_prefix}], separators=(",", ":"))


def _stored(offsets: Mapping[str, Any], spec: ConnectorSpec) -> tuple[StoredPosition | Reset | None, list[str]]:
    """The source's position, and the tables of which something is stored."""
    value = offsets.get(_partition(spec))
    tables = sorted(parts["table"] for _, parts in map(json.loads, offsets) if "table" in parts)
    if value is None:
        return None, tables
    return Reset.from_json(value) or StoredPosition.from_json(value), tables


def _report(config: Config, spec: ConnectorSpec) -> SlotReport:
    settings = _settings(spec)
    report = SlotReport(spec.name, settings.slot)
    redact = config.secrets.redact
    stored: StoredPosition | Reset | None = None
    try:
        stored, _ = _stored(show_offsets(config, spec.name), spec)
    except CdcError as error:
        report.problems.append(redact(f"the stored position cannot be read: {error}"))
    if stored is not None and stored.lsn is not None:
        report.stored_lsn = format_lsn(stored.lsn)
    try:
        _ask_server(report, settings, stored)
    except CdcError as error:
        report.problems.append(redact(str(error)))
    return report


def _ask_server(report: SlotReport, settings: PostgresConfig, stored: StoredPosition | Reset | None) -> None:
    server = Server(settings, "cdc/slot")
    try:
        _compare(report, settings, stored, server)
    finally:
        server.close()


def _compare(
    report: SlotReport, settings: PostgresConfig, stored: StoredPosition | Reset | None, server: Server
) -> None:
    connection = server.connection()
    slot = read_slot(connection, settings.slot)
    end = wal_now(connection)
    report.wal_end = format_lsn(end)
    if stored is not None and stored.lsn is not None:
        report.behind_bytes = end - stored.lsn
        report.would_be_lost = f"changes {gap_text(stored.lsn, end)}" if end > stored.lsn else ""
    if slot is not None:
        _describe(report, slot, stored, end)
    if isinstance(stored, Reset):
        return  # whatever is wrong with the slot: the next start makes another
    if stored is not None:
        stream = server.stream()
        try:
            system = stream.identify()
            preparation.verify_position(stored, system, stream.timeline_history, settings, standby=server.standby)
        finally:
            stream.close()
    preparation.verify_slot(slot, settings, stored, end)


def _describe(report: SlotReport, slot: SlotInfo, stored: StoredPosition | Reset | None, end: int) -> None:
    report.exists = True
    report.active, report.pid, report.holder = slot.active, slot.active_pid, slot.holder
    report.wal_status, report.safe_wal_size = slot.wal_status, slot.safe_wal_size
    report.invalidation_reason, report.failover, report.synced = slot.invalidation_reason, slot.failover, slot.synced
    if slot.restart_lsn is not None:
        report.restart_lsn = format_lsn(slot.restart_lsn)
        report.retained_bytes = end - slot.restart_lsn
    if slot.confirmed_flush_lsn is not None:
        report.confirmed_flush_lsn = format_lsn(slot.confirmed_flush_lsn)
        if stored is not None and stored.lsn is not None:
            report.unconfirmed_bytes = stored.lsn - slot.confirmed_flush_lsn
        elif stored is None:
            report.would_be_lost = f"changes {gap_text(slot.confirmed_flush_lsn, end)}"
    if slot.wal_status == "unreserved" and not slot.lost:
        report.problems.append(
            f"the slot {slot.name} keeps more WAL than max_slot_wal_keep_size allows (wal_status unreserved): the next "
            "checkpoint may invalidate it. Remedy: run the connector now, or raise max_slot_wal_keep_size"
        )


def _as_text(report: SlotReport) -> str:
    def size(value: int | None, none: str = "unknown") -> str:
        return none if value is None else sized(value)

    held = f"held by {report.holder}" if report.active else "held by nobody"
    lines = [f"{report.connector}: slot {report.slot}, " + (held if report.exists else "not there")]
    if report.exists:
        extras = [name for name in ("failover", "synced") if getattr(report, name)]
        lines += [
            f"  wal_status          {report.wal_status or 'unknown'}"
            + (f" ({report.invalidation_reason})" if report.invalidation_reason else "")
            + (f", {', '.join(extras)}" if extras else ""),
            f"  restart_lsn         {report.restart_lsn or 'none'}, retains {size(report.retained_bytes)} of WAL",
            f"  confirmed_flush_lsn {report.confirmed_flush_lsn or 'none'}",
            f"  safe_wal_size       {size(report.safe_wal_size, 'without limit')}",
        ]
    lines.append(f"  stored in Kafka     {report.stored_lsn or 'nothing'}")
    if report.wal_end is not None:
        lines.append(f"  end of the WAL      {report.wal_end}")
    if report.would_be_lost:
        lines.append(f"  lost with the slot  {report.would_be_lost}")
    lines += [f"  WRONG: {problem}" for problem in report.problems]
    return "\n".join(lines)
