"""Debezium's ``TimezoneConverter``: times of rows in another time zone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from cdc.errors import ConfigError, Finding
from cdc.plugin import Transform
from cdc.record import ConnectRecord, Schema
from cdc.transforms.schemas import Once, field_schema, is_envelope
from cdc.transforms.settings import Settings, names, read

__all__ = ["TimezoneConverter"]

_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)")
_ZONED: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
_ZONED_TIME: Final = re.compile(r"(\d\d:\d\d:\d\d)(\.\d+)?Z")
_EPOCH: Final = datetime(1970, 1, 1)
_UNITS: Final = {
    "io.debezium.time.Timestamp": 1000,
    "io.debezium.time.MicroTimestamp": 1_000_000,
    "io.debezium.time.NanoTimestamp": 1_000_000_000,
    "org.apache.kafka.connect.data.Timestamp": 1000,
}
"""Timestamps without zone, by what a second is in them."""

_Change = Callable[[Any], Any]


class _Settings(Settings):
    converted_timezone: str = Field(min_length=1)
    include_list: str = ""
    exclude_list: str = ""


class TimezoneConverter(Transform):
    """Timestamps and times with a zone are told in ``converted.timezone``; timestamps without one are taken as its own.

    Dates and times without zone stay. Values beyond the years 1 to 9999, and infinity, stay as they are: they are right
    in any zone.
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.debezium.transforms.TimezoneConverter",)

    def configure(self, config: Mapping[str, str]) -> None:
        settings = read(_Settings, config)
        self._zone = _zone(settings.converted_timezone)
        self._include = names(settings.include_list)
        self._exclude = names(settings.exclude_list)
        if self._include and self._exclude:
            raise ConfigError([Finding("contradicts include.list: set one of them", key="exclude.list")])
        self._once = Once()

    @property
    def keeps_place(self) -> bool:
        return True

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        schema = record.value_schema
        if record.value is None or schema is None or schema.type != "struct":
            return record
        if not is_envelope(record):
            changes = self._once(schema, lambda: self._changes(schema, record.topic, ""), record.topic)
            return replace(record, value=_changed(record.value, changes)) if changes else record
        table = str(record.value["source"]["table"])
        row = field_schema(schema, "after")
        changes = self._once(schema, lambda: self._changes(row, record.topic, table), record.topic, table)
        if not changes:
            return record
        images = {name: _changed(record.value[name], changes) for name in ("before", "after")}
        return replace(record, value={**record.value, **images})

    def _changes(self, row: Schema | None, topic: str, table: str) -> dict[str, _Change]:
        found: dict[str, _Change] = {}
        for field in row.fields if row else ():
            change = self._change(field.schema)
            if change is not None and self._chosen(topic, table, field.name):
                found[field.name] = change
        return found

    def _chosen(self, topic: str, table: str, field: str) -> bool:
        if self._include:
            return any(_matches(entry, topic, table, field) for entry in self._include)
        return not any(_matches(entry, topic, table, field) for entry in self._exclude)

    def _change(self, schema: Schema) -> _Change | None:
        unit = _UNITS.get(schema.name or "")
        if unit is not None:
            return lambda value: self._instant(value, unit)
        if schema.name == "io.debezium.time.ZonedTimestamp":
            return self._zoned
        if schema.name == "io.debezium.time.ZonedTime":
            return self._zoned_time
        return None

    def _instant(self, value: int, unit: int) -> int:
        """A wall clock's time, counted as if in UTC, as the instant when it is shown in the zone."""
        try:
            wall = _EPOCH + timedelta(seconds=value // unit)
            offset = wall.replace(tzinfo=self._zone).utcoffset() or timedelta()
        except OverflowError:
            return value
        return value - (offset.days * 86400 + offset.seconds) * unit

    def _zoned(self, text: str) -> str:
        match = _ZONED.fullmatch(text)
        if match is None:
            return text
        try:
            moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC).astimezone(self._zone)
        except (OverflowError, ValueError):
            return text
        return moment.replace(tzinfo=None).isoformat() + _fraction(match[2]) + _offset_text(moment.utcoffset())

    def _zoned_time(self, text: str) -> str:
        match = _ZONED_TIME.fullmatch(text)
        if match is None or match[1] >= "24":
            return text
        # A time of no day has the offset of now, as in Java's OffsetTime.
        offset = datetime.now(self._zone).utcoffset()
        moment = datetime.fromisoformat(f"2000-01-02T{match[1]}") + (offset or timedelta())
        return moment.time().isoformat() + _fraction(match[2]) + _offset_text(offset)


def _changed(row: Mapping[str, Any] | None, changes: Mapping[str, _Change]) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        name: changes[name](value) if name in changes and value is not None else value for name, value in row.items()
    }


def _matches(entry: str, topic: str, table: str, field: str) -> bool:
    """``source:<table>[:<field>]``, ``topic:<topic>[:<field>]`` or either without its first part."""
    parts = entry.split(":")
    owners = {"source": [table], "topic": [topic]}.get(parts[0], [topic, table])
    if parts[0] in ("source", "topic"):
        parts = parts[1:]
    return bool(parts) and parts[0] in owners and (len(parts) == 1 or parts[1] == field)


def _fraction(text: str | None) -> str:
    digits = (text or "").rstrip("0")
    return "" if digits == "." else digits


def _offset_text(offset: timedelta | None) -> str:
    minutes = int((offset or timedelta()).total_seconds()) // 60
    if minutes == 0:
        return "Z"
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _zone(name: str) -> tzinfo:
    match = _OFFSET.fullmatch(name)
    if match:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        if offset <= timedelta(hours=18):
            return timezone(-offset if match[1] == "-" else offset)
    elif name in {"Z", "UTC", "GMT"}:
        return UTC
    else:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            pass  # told below
    message = f"{name!r} is no time zone: expected an offset like +05:30 or a name like Europe/Warsaw"
    raise ConfigError([Finding(message, key="converted.timezone")])
