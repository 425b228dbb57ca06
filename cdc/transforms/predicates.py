"""Kafka Connect's predicates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from cdc.errors import ConfigError, Finding
from cdc.plugin import Predicate
from cdc.record import ConnectRecord
from cdc.transforms.settings import Settings, java_pattern, read

__all__ = ["HasHeaderKey", "RecordIsTombstone", "TopicNameMatches"]

_PACKAGE = "org.apache.kafka.connect.transforms.predicates."


class _Nothing(Settings):
    pass


class _Name(Settings):
    name: str = Field(min_length=1)


class _Pattern(Settings):
    pattern: str = Field(min_length=1)


class RecordIsTombstone(Predicate):
    """Records whose value is null."""

    aliases: ClassVar[tuple[str, ...]] = (_PACKAGE + "RecordIsTombstone",)

    def configure(self, config: Mapping[str, str]) -> None:
        read(_Nothing, config)

    def test(self, record: ConnectRecord) -> bool:
        return record.value is None


class HasHeaderKey(Predicate):
    """Records with a header of the name ``name``."""

    aliases: ClassVar[tuple[str, ...]] = (_PACKAGE + "HasHeaderKey",)

    def configure(self, config: Mapping[str, str]) -> None:
        self._name = read(_Name, config).name

    def test(self, record: ConnectRecord) -> bool:
        return any(name == self._name for name, _ in record.headers)


class TopicNameMatches(Predicate):
    """Records whose topic ``pattern`` matches as a whole."""

    aliases: ClassVar[tuple[str, ...]] = (_PACKAGE + "TopicNameMatches",)

    def configure(self, config: Mapping[str, str]) -> None:
        try:
            self._pattern = java_pattern(read(_Pattern, config).pattern)
        except ValueError as error:
            raise ConfigError([Finding(str(error), key="pattern")]) from None

    def test(self, record: ConnectRecord) -> bool:
        return self._pattern.fullmatch(record.topic) is not None
