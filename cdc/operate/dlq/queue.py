"""The queue of a connector: which of its letters are open, and receipts for those that are not any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cdc.config import EMBEDDED, Config, ConnectorSpec
from cdc.errors import ConfigError, Finding
from cdc.kafka.producer import RecordProducer
from cdc.kafka.reader import TopicReader
from cdc.runtime.letters import CONTEXT, HEADER_LETTER, Letter, parse_letter, parse_receipt, receipt_header

__all__ = ["Entry", "answered", "connector_of", "read_queue", "with_registry"]

Coordinates = tuple[str, int, int, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter and where it lies in the queue."""

    place: tuple[int, int]
    """Partition and offset in the queue."""
    letter: Letter
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(repr=False)
    """The record's own."""
    timestamp: int
    """The record's, in ms since 1970, -1 for none."""

    @property
    def id(self) -> str:
        """What a letter is called on the command line."""
        return f"{self.place[0]}-{self.place[1]}"


def connector_of(config: Config, name: str) -> tuple[ConnectorSpec, str]:
    """A connector and the topic of its queue. `ConfigError` if there is none."""
    found = next((spec for spec in config.connectors if spec.name == name), None)
    if found is None:
        known = ", ".join(spec.name for spec in config.connectors)
        raise ConfigError([Finding(f"there is no connector {name}", remedy=f"Connectors are: {known}")])
    queue = found.connector.config.errors_deadletterqueue_topic_name
    if not queue:
        raise ConfigError(
            found.placed(
                [Finding("the connector has no dead letter queue", remedy="Set errors.deadletterqueue.topic.name")]
            )
        )
    return found, queue


def read_queue(spec: ConnectorSpec, queue: str, *, everything: bool = False) -> list[Entry]:
    """The letters of a connector that no receipt is about, the last one of each record, in the queue's order; with
    ``everything`` those that were replayed, too."""
    found: dict[Coordinates, Entry] = {}
    with TopicReader(spec.worker, queue, "letters") as reader:
        for message in reader.read(dict.fromkeys(reader.partitions())):
            headers: Any = message.headers() or []
            receipt = parse_receipt(headers)
            if receipt is not None:
                if not everything:
                    found.pop(receipt, None)
                continue
            letter = parse_letter(headers)
            if letter is None or letter.connector not in ("", spec.name):
                continue
            own = tuple((n, v) for n, v in headers if n != HEADER_LETTER and not n.startswith(CONTEXT))
            place = message.partition() or 0, message.offset() or 0
            kind, stamp = message.timestamp()
            coordinates = letter.coordinates
            if letter.offset < 0 and not letter.position:
                coordinates = (*coordinates[:3], f"{place}")  # nothing tells it from others
            found.pop(coordinates, None)
            key, value = message.key(), message.value()
            found[coordinates] = Entry(place, letter, key, value, own, stamp if kind else -1)
    return list(found.values())


def answered(spec: ConnectorSpec, queue: str, letters: Sequence[Letter]) -> None:
    """Write receipts, durably: these letters need no replay any more."""
    if not letters:
        return
    producer = RecordProducer(spec.worker, None, lambda: None)
    try:
        producer.start()
        for letter in letters:
            header = receipt_header(letter)
            producer.produce(queue, header[1], None, [header])
        producer.commit()
    finally:
        producer.close()


@contextmanager
def with_registry(config: Config, worker: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The worker's properties as its tasks see them: with an embedded registry of our own, if it is embedded."""
    if not any(key.endswith("schema.registry.url") and value == EMBEDDED for key, value in worker.items()):
        yield dict(worker)
        return
    from cdc.runtime.listener import Listener  # noqa: PLC0415 - only those who use it pay for it
    from cdc.runtime.registry import EmbeddedRegistry  # noqa: PLC0415

    registry = EmbeddedRegistry(config.properties, lambda: None)
    listener = Listener("http://127.0.0.1:0", lambda: ("healthy", ""), lambda: None, registry.routes)
    registry.start()
    listener.start()
    try:
        yield {
            key: listener.url if key.endswith("schema.registry.url") and value == EMBEDDED else value
            for key, value in worker.items()
        }
    finally:
        registry.stop()
        listener.stop()
