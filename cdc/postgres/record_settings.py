"""The settings that say which records there are beside those of rows, and what names and headers records have."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from cdc.plugin import ConnectorConfig

__all__ = ["RecordSettings"]

Adjustment = Literal["none", "avro", "avro_unicode"]


class RecordSettings(ConnectorConfig):
    """Debezium's settings of names, headers, heartbeats, messages and transaction metadata."""

    schema_name_adjustment_mode: Adjustment = Field(
        default="none", description="How characters that Avro's names cannot have are replaced in schema names."
    )
    field_name_adjustment_mode: Adjustment = Field(
        default="none", description="How characters that Avro's names cannot have are replaced in field names."
    )
    extended_headers_enabled: bool = Field(
        default=False,
        description="Add Debezium's __debezium.context.* headers to every record: connector, task and run.",
    )
    provide_transaction_metadata: bool = Field(
        default=False,
        description="Write BEGIN and END records to <topic.prefix>.transaction, and a transaction block in records.",
    )
    topic_transaction: str = Field(
        default="transaction", min_length=1, description="Last part of the topic of transaction metadata."
    )
    topic_delimiter: str = Field(
        default=".", pattern=r"^[._\-]$", description="What stands between the parts of a topic's name: . _ or -."
    )
    heartbeat_interval_ms: int = Field(
        default=0, ge=0, description="How often a heartbeat record is written; 0 is never. Idle slots do not need it."
    )
    heartbeat_action_query: str = Field(
        default="", description="Statement to run in the database with every heartbeat."
    )
    topic_heartbeat_prefix: str = Field(
        default="__debezium-heartbeat", description="First part of the heartbeats' topic: <this>.<topic.prefix>."
    )
    topic_heartbeat_name: str = Field(default="", description="The whole name of the heartbeats' topic.")
    message_prefix_include_list: str = Field(
        default="", description="Prefixes of the logical messages to write: regular expressions, comma-separated."
    )
    message_prefix_exclude_list: str = Field(
        default="", description="Prefixes of the logical messages to leave out: regular expressions, comma-separated."
    )

    @field_validator("message_prefix_include_list", "message_prefix_exclude_list")
    @classmethod
    def _prefixes(cls, value: str) -> str:
        for expression in value.split(","):
            try:
                re.compile(expression.strip())
            except re.error as error:
                raise ValueError(f"{expression!r} is not a regular expression: {error}") from None
        return value
