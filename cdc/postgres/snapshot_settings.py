"""The settings of snapshots, and of the signals that ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from cdc.postgres.record_settings import RecordSettings
from cdc.postgres.selection import split_list

__all__ = ["SnapshotSettings"]

_ALIASES: Final = {
    "schema_only": "no_data",
    "never": "no_data",
    "exported": "initial",
    "initial_schema_only": "no_data",
}
"""Names that Debezium had for modes before, and still takes."""
_BASED: Final = "configuration_based"
_CHANNELS: Final = ("source", "kafka")
_FOREIGN_CHANNELS: Final = {"file", "jmx", "in-process"}
_TOPIC: Final = re.compile(r"[A-Za-z0-9._\-]{1,249}")


class SnapshotSettings(RecordSettings):
    """Debezium's settings of snapshots and signals."""

    snapshot_mode: Literal["initial", "initial_only", "no_data", "always", "when_needed"] = Field(
        default="initial",
        description="Whether to read the rows that are there before streaming. configuration_based and Debezium's "
        "earlier names are taken too.",
    )
    snapshot_mode_configuration_based_snapshot_data: bool = Field(
        default=False, description="With snapshot.mode=configuration_based: read the rows."
    )
    snapshot_mode_configuration_based_snapshot_schema: bool = Field(
        default=False, description="With snapshot.mode=configuration_based; schemas always come with the rows."
    )
    snapshot_mode_configuration_based_start_stream: bool = Field(
        default=False, description="With snapshot.mode=configuration_based: stream changes."
    )
    snapshot_mode_configuration_based_snapshot_on_schema_error: bool = Field(
        default=False, description="With snapshot.mode=configuration_based; there is no schema history to be in error."
    )
    snapshot_mode_configuration_based_snapshot_on_data_error: bool = Field(
        default=False,
        description="With snapshot.mode=configuration_based: as when_needed, if rows are read and changes streamed.",
    )
    snapshot_include_collection_list: str = Field(
        default="",
        description="Tables, as in table.include.list, whose rows are read before streaming; default all chosen ones.",
    )
    snapshot_select_statement_overrides: str = Field(
        default="",
        description="Tables, <schema>.<table>, comma-separated, whose rows are first read by a statement of their own.",
    )
    snapshot_statements: Mapping[str, str] = Field(
        default_factory=dict,
        alias="snapshot.select.statement.overrides.<schema>.<table>",
        description="The SELECT for such a table, with all captured columns. Rows that it leaves out are told when "
        "they change; what is read again, for any reason, is read whole.",
    )
    snapshot_fetch_size: int = Field(
        default=10240, ge=1, le=1_000_000, description="Rows to read in one chunk of a snapshot."
    )
    snapshot_max_threads: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Tables to read side by side, each through two connections of its own, and with up to 8 MB of rows "
        "in hand.",
    )
    signal_enabled_channels: str = Field(
        default="source,kafka",
        description="Where signals are taken from, comma-separated: source (the table signal.data.collection) and "
        "kafka (the topic signal.kafka.topic; cdc snapshot and the worker's REST API write there too).",
    )
    signal_data_collection: str = Field(
        default="",
        pattern=r"^([^.\s][^.]*\.[^.]*[^.\s])?$",
        description="The table of signals, <schema>.<table>, with Debezium's columns id, type and data. Empty: none.",
    )
    signal_kafka_topic: str = Field(
        default="",
        description="The topic of signals: JSON objects with type and data, under the key <topic.prefix>. Default "
        "<topic.prefix>-signal.",
    )

    @model_validator(mode="before")
    @classmethod
    def _mode(cls, values: Any) -> Any:
        """Modes by their other names; one that is put together of switches becomes the one that it is."""
        if not isinstance(values, Mapping):
            return values
        mode = str(values.get("snapshot.mode", "")).strip().lower()
        if mode in _ALIASES:
            return {**values, "snapshot.mode": _ALIASES[mode]}
        if mode != _BASED:
            return values
        switch = f"snapshot.mode.{_BASED.replace('_', '.')}."

        def on(name: str) -> bool:
            return str(values.get(switch + name, "")).strip().lower() == "true"

        data, stream = on("snapshot.data"), on("start.stream")
        if not data and not stream:
            raise ValueError(
                f"snapshot.mode is configuration_based, and neither {switch}snapshot.data nor {switch}start.stream is "
                "true: there would be nothing to do"
            )
        name = ("initial" if stream else "initial_only") if data else "no_data"
        if data and stream and on("snapshot.on.data.error"):
            name = "when_needed"
        return {**values, "snapshot.mode": name}

    @model_validator(mode="after")
    def _statements(self) -> Self:
        """Each table that is listed has a statement, and each statement is listed."""
        listed = set(split_list(self.snapshot_select_statement_overrides))
        key = "snapshot.select.statement.overrides"
        if lost := sorted(listed - self.snapshot_statements.keys()):
            raise ValueError(f"{key} names {', '.join(lost)}, and {key}.{lost[0]} is not set")
        if lost := sorted(self.snapshot_statements.keys() - listed):
            raise ValueError(f"{key}.{lost[0]} is set, and {key} does not name {lost[0]}")
        return self

    @field_validator("signal_enabled_channels")
    @classmethod
    def _channels(cls, value: str) -> str:
        for name in split_list(value):
            if name in _FOREIGN_CHANNELS:
                raise ValueError(f"there is no channel {name} here; use {', '.join(_CHANNELS)}")
            if name not in _CHANNELS:
                raise ValueError(f"{name} is not a channel of signals; use {', '.join(_CHANNELS)}")
        return value

    @field_validator("signal_kafka_topic")
    @classmethod
    def _topic(cls, value: str) -> str:
        if value and not _TOPIC.fullmatch(value):
            raise ValueError(f"{value!r} is not a name of a topic")
        return value

    @property
    def signal_table(self) -> tuple[str, str] | None:
        """Schema and name of the table of signals; ``None`` when none is listened to."""
        if not self.signal_data_collection or "source" not in split_list(self.signal_enabled_channels):
            return None
        schema, _, name = self.signal_data_collection.partition(".")
        return schema, name

    @property
    def takes_signals_from_kafka(self) -> bool:
        """Whether the channel ``kafka`` is on."""
        return "kafka" in split_list(self.signal_enabled_channels)
