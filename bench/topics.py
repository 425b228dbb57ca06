"""A topic read to its end: what was written when, and whether its last records by key are the rows of the table."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from bench.servers import DATABASE, Servers
from cdc.codec.avro_fields import compile_fields, compile_key
from cdc.mirror.rows import exactly
from cdc.operate.verify.compare import drift
from cdc.operate.verify.rows import TableRows
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import connect
from cdc.record import HEADER_TEXT

__all__ = ["NotEqual", "Reading", "by_schema", "end_offsets", "prove_topic", "read_topic"]

_BATCH: Final = 10_000


class NotEqual(Exception):
    """The two ends differ: there is nothing to measure."""


@dataclass(slots=True)
class Reading:
    """What a topic holds, and how the records from certain offsets on came in.

    ``last`` is key → value of the last record and its header ``cdc.text``; times are LogAppendTime in ms,
    ``first_records`` the records that came in the first of these milliseconds.
    """

    last: dict[bytes | None, tuple[bytes | None, bytes | None]] = field(default_factory=dict)
    next: dict[int, int] = field(default_factory=dict)
    """Partition → the offset behind its last record."""
    records: int = 0
    bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    first_records: int = 0
    stamped_by_broker: bool = True

    @property
    def seconds(self) -> float:
        """From the first record to the last."""
        return (self.last_ms - self.first_ms) / 1000


def end_offsets(servers: Servers, topic: str) -> dict[int, int]:
    """Partition → where it ends now."""
    consumer = _consumer(servers)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {number: consumer.get_watermark_offsets(Place(topic, number), timeout=10)[1] for number in partitions}
    finally:
        consumer.close()


def read_topic(
    servers: Servers,
    topic: str,
    since: Mapping[int, int] | None = None,
    each: Callable[[int, bytes | None, bytes | None], None] | None = None,
) -> Reading:
    """Read all committed records; times and counts are of those from the offsets ``since`` on.

    ``each`` is called with partition, key and value of every record, in the order of its partition.
    """
    begin = dict(since or {})
    reading = Reading()
    consumer = _consumer(servers)
    try:
        left = {number for number, end in end_offsets(servers, topic).items() if end > 0}
        consumer.assign([Place(topic, number, OFFSET_BEGINNING) for number in left])
        while left:
            messages = consumer.consume(_BATCH, 1.0)
            for message in messages:
                error = message.error()
                number = message.partition() or 0
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    left.discard(number)
                    continue
                offset = message.offset() or 0
                reading.next[number] = offset + 1
                key, value = message.key(), message.value()
                reading.last[key] = value, _exact_text(message)
                if each is not None:
                    each(number, key, value)
                if offset >= begin.get(number, 0):
                    _count(reading, message, len(key or b"") + len(value or b""))
    finally:
        consumer.close()
    return reading


def _exact_text(message: Any) -> bytes | None:
    for name, value in message.headers() or ():
        if name == HEADER_TEXT:
            return bytes(value)
    return None


def _count(reading: Reading, message: Any, size: int) -> None:
    kind, at = message.timestamp()
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        reading.stamped_by_broker = False
    if reading.records == 0 or at < reading.first_ms:
        reading.first_ms, reading.first_records = at, 0
    if at == reading.first_ms:
        reading.first_records += 1
    reading.last_ms = max(reading.last_ms, at)
    reading.records += 1
    reading.bytes += size


def prove_topic(servers: Servers, reading: Reading, registry: str, table: str) -> int:
    """Compare the topic, folded by key, with the table; the number of rows. Raises `NotEqual`.

    What a row must be comes from Postgres's text (`cdc.operate.verify`), what it is from the record's Avro bytes.
    """
    key_plan = by_schema(registry, compile_key)
    value_plan = by_schema(registry, compile_fields)
    found: dict[tuple[bytes | None, ...], dict[bytes, bytes]] = {}
    for key, (value, exact) in reading.last.items():
        if key is None or value is None:
            continue
        plan = value_plan(value)
        fields, rest = plan.decode(value, 5)
        if fields is None:
            if rest != b"d":
                raise NotEqual(f"{table}: the last record of a key is of the kind {rest!r}")
            continue
        if exact is not None:
            fields, rest = exactly(fields, rest, exact, plan.kinds)
        found[key_plan(key).decode(key, 5)] = dict(zip(fields[::2], fields[1::2], strict=True))
    info = {name: str(value) for name, value in servers.postgres.conninfo(DATABASE).items()}
    rows = 0
    with connect(info, "cdc-bench") as connection:
        row = connection.execute("select %s::regclass::oid", [table]).fetchone()
        source = PostgresConfig.model_validate(
            {
                "name": "bench",
                "connector.class": "postgres",
                "database.user": info["user"],
                "database.dbname": DATABASE,
                "topic.prefix": "bench",
            }
        )
        reader = TableRows(connection, source, int(row[0]) if row else 0)
        key_columns = [name.encode() for name in reader.info.primary_key]
        after: tuple[str, ...] | None = None
        while chunk := reader.chunk(after):
            for line in chunk:
                told = found.pop(tuple(line.hash[name] for name in key_columns), None)
                if told != line.hash:
                    raise NotEqual(f"{table}: {drift(b':'.join(k.encode() for k in line.key), line.hash, told)}")
            rows += len(chunk)
            after = chunk[-1].key
    if found:
        raise NotEqual(
            f"{table}: the topic holds {len(found)} rows that the table does not, such as {next(iter(found))}"
        )
    return rows


def by_schema(registry: str, compile_plan: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """From a message in Confluent's wire format to the plan of its schema; each schema is asked for once."""
    plans: dict[bytes, Any] = {}

    def plan_of(message: bytes) -> Any:
        plan = plans.get(message[:5])
        if plan is None:
            number = int.from_bytes(message[1:5], "big")
            with urllib.request.urlopen(f"{registry}/schemas/ids/{number}", timeout=30) as answer:  # noqa: S310
                plan = plans[message[:5]] = compile_plan(json.load(answer)["schema"])
        return plan

    return plan_of


def _consumer(servers: Servers) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": servers.kafka.bootstrap_servers,
            "group.id": "cdc-bench",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
