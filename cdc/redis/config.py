"""The settings of the Redis sink connector. Names are those of Kafka Connect and of Redis's own connector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from cdc.codec.flattened import METADATA, metadata_pattern
from cdc.mirror.keys import Template
from cdc.mirror.rows import placeholders
from cdc.redis.connection_config import RedisConnectionConfig

__all__ = ["RedisConfig"]

_TEMPLATES: Final = "redis.key."
_OWN_UNDER_TEMPLATES: Final = {"redis.key.ttl", "redis.key.cert", "redis.key.file", "redis.key.password"}


class RedisConfig(RedisConnectionConfig):
    """Settings of a Redis sink."""

    topics: str = Field(default="", description="Topics to mirror, comma-separated. Either this or topics.regex.")
    topics_regex: str = Field(
        default="", description="Regular expression that matches the whole names of the topics to mirror."
    )
    topics_refresh_ms: int = Field(
        default=3000, ge=100, description="How often topics.regex is compared with the topics there are."
    )

    redis_key: str = Field(
        default="{table}:{pk}",
        description="Template of the rows' keys: {pk}, key columns, {table}, {schema}, {topic}.",
    )
    redis_keys: Mapping[str, str] = Field(
        default_factory=dict,
        alias="redis.key.<topic>",
        description="Template for the rows of one topic, in place of redis.key.",
    )
    redis_ttl: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("redis.ttl", "redis.key.ttl"),
        description="Seconds to live of a row's key, begun again by every write. Default: rows do not expire.",
    )
    redis_type: Literal["HASH"] = Field(default="HASH", description="Rows are hashes.")
    redis_cluster_tombstone_ttl_ms: int = Field(
        default=604_800_000,
        ge=1000,
        description="How long a cluster remembers a deleted row's version, so that nothing older brings it back: at "
        "least as long as records may be read again or arrive late. Default: 7 days.",
    )

    unavailable_value_placeholder: str = Field(
        default="__debezium_unavailable_value",
        description="What Debezium writes for a TOASTed value that it does not know: such columns are left as they "
        "are. In records of our own it is text. hex: and hexadecimal digits for bytes; empty: always text.",
    )
    metadata_fields: str = Field(
        default="",
        description="Regular expression of the fields of flattened records (ExtractNewRecordState) that are no "
        "columns. Default: the names that add.fields gives, such as __op and __source_ts_ms. __deleted is none ever.",
    )

    batch_max_records: int = Field(
        default=1000, ge=1, le=100_000, description="Most records that are written to Redis in one step."
    )
    batch_max_bytes: int = Field(
        default=4 << 20, ge=1024, le=256 << 20, description="Size of record values at which such a step is closed."
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_templates(cls, values: Any) -> Any:
        """``redis.key.<topic>`` has the topic in its name."""
        if not isinstance(values, Mapping):
            return values
        own = {
            name: value
            for name, value in values.items()
            if name.startswith(_TEMPLATES) and name not in _OWN_UNDER_TEMPLATES and name != "redis.key.<topic>"
        }
        if not own:
            return values
        rest = {name: value for name, value in values.items() if name not in own}
        return {**rest, "redis.key.<topic>": {name.removeprefix(_TEMPLATES): value for name, value in own.items()}}

    @field_validator("topics_regex", "metadata_fields")
    @classmethod
    def _expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return value

    @field_validator("unavailable_value_placeholder")
    @classmethod
    def _placeholder(cls, value: str) -> str:
        try:
            placeholders(value)
        except ValueError:
            raise ValueError("hex: must be followed by pairs of hexadecimal digits") from None
        return value

    @field_validator("redis_key")
    @classmethod
    def _template(cls, value: str) -> str:
        Template(value)
        return value

    @property
    def metadata(self) -> re.Pattern[str]:
        """The fields of flattened records that are no columns."""
        return metadata_pattern(self.metadata_fields) if self.metadata_fields else METADATA

    @property
    def topic_names(self) -> tuple[str, ...]:
        """The topics of the setting ``topics``."""
        return tuple(dict.fromkeys(name.strip() for name in self.topics.split(",") if name.strip()))

    def reads(self, topic: str) -> bool:
        """Whether the connector mirrors a topic."""
        if self.topics_regex:
            return not topic.startswith("__") and re.fullmatch(self.topics_regex, topic) is not None
        return topic in self.topic_names

    def template(self, topic: str) -> Template:
        """The key template of a topic's rows."""
        return Template(self.redis_keys.get(topic, self.redis_key))
