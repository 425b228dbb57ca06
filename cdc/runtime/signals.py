"""Signals to a running source task: read from Kafka between two polls, their places stored with the source's offsets.

Signals are an aid: without their topic the stream goes on, and says so.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from cdc.config import ConnectorSpec
from cdc.errors import ConfigError, FatalError, Finding
from cdc.kafka.signals import SIGNALS, SignalReader, write_signal
from cdc.kafka.topics import TopicFacts, Topics
from cdc.plugin import SignalTopic, SourceConnector, SourceTask

__all__ = ["Signals", "execute", "send", "signals_partition"]

_log = structlog.get_logger(__name__)


def signals_partition(connector: str, topic: str) -> str:
    """The key under which the places of the signals that were acted on are stored with the offsets of a source."""
    return json.dumps([connector, {"signals": topic}], separators=(",", ":"))


class Signals:
    """What one life of a source task takes from its topic of signals, if it has one.

    ``fresh`` is what must be stored with the task's offsets, in the transaction that stores what the signals did.
    """

    def __init__(self, connector: str, channel: SignalTopic | None) -> None:
        self._connector = connector
        self._channel = channel
        self._reader: SignalReader | None = None
        self.fresh: dict[str, Any] = {}

    def start(
        self, worker: Mapping[str, str], topics: Topics, stored: Mapping[str, Any], report: Callable[[str, Any], None]
    ) -> None:
        """Begin to read behind the last signal that was acted on; at the beginning, when none was."""
        channel = self._channel
        if channel is None:
            return
        try:
            partitions = topics.ensure(channel.topic, SIGNALS, partitions=1)
        except FatalError as error:
            _log.error("signals are not read from Kafka", topic=channel.topic, cause=str(error))
            report("signals_topic", str(error))
            return
        places = stored.get(signals_partition(self._connector, channel.topic)) or {}
        self._reader = SignalReader(worker, channel.topic, channel.key, partitions, places)
        topics.watch([channel.topic])

    def reads(self, topic: str) -> bool:
        """Whether this is the topic of the signals."""
        return self._channel is not None and topic == self._channel.topic

    def note(self, facts: TopicFacts | None) -> None:
        """What the broker says of the topic now."""
        if self._reader is not None and self._reader.note(facts, _log.warning):
            self._keep(self._reader)

    def _keep(self, reader: SignalReader) -> None:
        self.fresh[signals_partition(self._connector, reader.topic)] = reader.places

    def hand_over(self, task: SourceTask) -> None:
        """Give the task what has come, if anything has."""
        reader = self._reader
        if reader is None:
            return
        found = reader.take(_log.warning)
        for place, payload in found:
            task.signal(payload, place)
        if found:
            self._keep(reader)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def execute(
    tables: Sequence[str], where: str = "", *, sweep: bool = False, blocking: bool = False
) -> tuple[str, dict[str, Any]]:
    """Type and data of a signal that asks for the rows of tables (expressions), of those that fulfil ``where``."""
    data: dict[str, Any] = {"data-collections": list(tables), "type": "blocking" if blocking else "incremental"}
    if where:
        data["additional-conditions"] = [{"data-collection": table, "filter": where} for table in tables]
    if sweep:
        data["sweep"] = True
    return "execute-snapshot", data


def send(spec: ConnectorSpec, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Write a signal for a source: its id, and where it stands. It waits there while the source does not run.

    `ConfigError` when the source takes no signals from Kafka, `DataError` for one that it would refuse.
    """
    connector = spec.connector
    channel = connector.signals if isinstance(connector, SourceConnector) else None
    if channel is None:
        raise ConfigError(
            [
                Finding(
                    f"{spec.name} takes no signals from Kafka",
                    key=f"connectors.{spec.name}.signal.enabled.channels",
                    remedy="Add kafka to it, and restart the worker" if isinstance(connector, SourceConnector) else "",
                )
            ]
        )
    if isinstance(connector, SourceConnector):
        connector.check_signal(kind, data)
    identifier = str(uuid.uuid4())
    payload = json.dumps({"id": identifier, "type": kind, "data": data}, ensure_ascii=False).encode()
    partition, offset = write_signal(spec.worker, channel.topic, channel.key, payload)
    return {"id": identifier, "topic": channel.topic, "partition": partition, "offset": offset}
