"""What the real Debezium wrote (tests/golden), mirrored through the real sink: Redis holds what Postgres holds.

The histories' own SQL runs on a Postgres, whose rows in canonical text are the oracle. Left out are histories in which
Debezium was told to write something else than the row (masks, renamed columns, time zones, milliseconds, hex), or does
not write rows again that DDL changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg import sql
from sink_feed import Bench, Schemas, Sink, eventually

from cdc.codec.canonical import from_postgres
from cdc.local.kafka import ApacheKafka
from cdc.local.postgres import SystemPostgres
from cdc.local.redis import Redis
from cdc.mirror.keys import KeyColumn, Template
from cdc.postgres.catalog import read_types
from cdc.postgres.copytext import parse_row
from cdc.postgres.pg_type import canonical_type
from cdc.record import Schema
from tests.fix_servers import Database, fresh_database
from tests.integration.golden_compare import Rule
from tests.integration.golden_run import play
from tests.unit.golden_feed import Payloads, Scenario

pytestmark = pytest.mark.integration

Rows = dict[str, dict[str, str]]
SCENARIOS = [
    Scenario(name)
    for name in (
        "defaults",
        "hstore_json",
        "interval_string",
        "replica_identity",
        "skipped_operations",
        "temporal_adaptive",
        "temporal_adaptive_time_microseconds",
        "temporal_extremes_adaptive",
        "temporal_isostring",
        "temporal_nanoseconds",
        "tombstones_off",
        "transaction_metadata",
        "truncate",
        "types_array",
        "types_binary_base64",
        "types_binary_bytes",
        "types_bit",
        "types_enum_domain_range",
        "types_float",
        "types_integer",
        "types_json_uuid_xml",
        "types_network_geometry",
        "types_numeric_precise",
        "types_numeric_string",
        "types_text",
        "unknown_types",
        "unwrap_defaults",
        "unwrap_delete_to_tombstone",
        "unwrap_rewrite",
        "unwrap_rewrite_with_tombstone",
    )
]
LOST = {
    "types_bit": ("vb", "vb10", "vb_nn"),  # the length of a bit varying
    "types_array": ("nv",),  # trailing zeros of a numeric without scale
    "types_numeric_precise": ("n", "n_nn"),
}
"""What Debezium's types cannot say, by scenario: these columns are not compared."""
UNWRAPPED = "meta_.*|__(op|table|lsn|source_.*)"
"""``add.fields`` of the histories that flatten."""
PLAIN = {"boolean", "int16", "int32", "int64", "string"}
PLAIN_NAMES = {None, "io.debezium.data.Json", "io.debezium.data.Uuid", "io.debezium.data.Enum", "io.debezium.data.Xml"}
CONVERTERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "avro": ({}, {}),
    "json+schemas": (
        {"key.converter": "json", "value.converter": "org.apache.kafka.connect.json.JsonConverter"},
        {"key.converter.schemas.enable": "true", "value.converter.schemas.enable": "true"},
    ),
    "json": (
        {"key.converter": "json", "value.converter": "json"},
        {"key.converter.schemas.enable": "false", "value.converter.schemas.enable": "false"},
    ),
}


@pytest.fixture(scope="module")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(postgres15: SystemPostgres) -> dict[str, Rows]:
    """Scenario → what its tables hold at the end, by ``<topic>:<pk>``."""
    found = {}
    for scenario in SCENARIOS:
        with fresh_database(postgres15) as database:
            with database.connect(options="-c TimeZone=UTC") as connection:
                for name in ("scenario.sql", "changes.sql"):
                    play(connection, (scenario.folder / name).read_text(encoding="utf-8"))
            found[scenario.name] = dict(table_rows(database, scenario.name))
    assert sum(map(len, found.values())) > 100
    return found


def table_rows(database: Database, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    pinned = (
        "-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c bytea_output=hex -c extra_float_digits=1 "
        "-c client_encoding=UTF8"
    )
    with database.connect(options=pinned) as connection:
        for schema, table, names, types, modifiers, key in connection.execute(_TABLES).fetchall():
            known = read_types(connection, types)
            kinds = [canonical_type(oid, modifier, known) for oid, modifier in zip(types, modifiers, strict=True)]
            space = Template("{topic}:{pk}").bind(f"{prefix}.{schema}.{table}", [KeyColumn(name) for name in key])
            identifiers = sql.SQL(", ").join(map(sql.Identifier, names))
            query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(identifiers, sql.Identifier(schema, table))
            with connection.cursor().copy(query) as lines:
                rows = [parse_row(bytes(line)[:-1], len(names)) for line in lines]
            for row in rows:
                texts = {name: from_postgres(*pair) for name, *pair in zip(names, kinds, row, strict=True)}
                found = {name: text.decode() for name, text in texts.items() if text is not None}
                yield space.render([texts[name] for name in key]).decode(), found


_TABLES = """
SELECT nspname, relname, array_agg(attname::text ORDER BY attnum), array_agg(atttypid::int8 ORDER BY attnum),
  array_agg(atttypmod ORDER BY attnum), max(key)
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace,
  LATERAL (SELECT array_agg(k.attname::text ORDER BY place) FROM pg_index,
    unnest(indkey::int2[]) WITH ORDINALITY AS u(number, place)
    JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = number
    WHERE indrelid = c.oid AND indisprimary) AS p(key)
WHERE nspname = 'public' AND relkind IN ('r', 'p') AND pg_attribute.attnum > 0 AND NOT pg_attribute.attisdropped
  AND key IS NOT NULL
GROUP BY 1, 2
"""
"""Tables with a primary key: columns, their types and type modifiers, key."""


def feed(bench: Bench, how: str) -> dict[tuple[str, int], int]:
    """Write all records into topics of the test's own; how many each partition has."""
    records: list[Payloads] = []

    def register(_subject: str, text: str) -> bytes:
        return b"\0" + bench.schemas.add(json.loads(text)).to_bytes(4, "big")

    for scenario in SCENARIOS:
        records += scenario.encoded(how, register)
    partitions: dict[str, int] = {}
    for record in records:
        partitions[record.topic] = max(partitions.get(record.topic, 1), record.partition + 1)
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    new = [NewTopic(f"{bench.prefix}.{topic}", number, 1) for topic, number in partitions.items()]
    for made in admin.create_topics(new).values():
        made.result(timeout=60)
    producer = Producer({"bootstrap.servers": bench.kafka.bootstrap_servers, "enable.idempotence": True})
    counts: dict[tuple[str, int], int] = {}
    for record in records:
        topic = f"{bench.prefix}.{record.topic}"
        producer.produce(topic, key=record.key, value=record.value, partition=record.partition, headers=record.headers)
        counts[topic, record.partition] = counts.get((topic, record.partition), 0) + 1
    assert producer.flush(60) == 0
    return counts


def wrong(expected: Mapping[str, Rows], found: Rows, how: str) -> list[Any]:
    """Rows and columns that Redis and Postgres disagree on."""
    out: list[Any] = []
    for scenario in SCENARIOS:
        rules = spoiled(scenario)
        rows = expected[scenario.name]
        mine = {key: row for key, row in found.items() if key.startswith(f"{scenario.name}.public.")}
        apart = [
            key for key in rows.keys() ^ mine.keys() if not any(r.topic and r.concerns(key, "null") for r in rules)
        ]
        out += [(key, "is missing" if key in rows else "is a ghost") for key in sorted(apart)]
        for key in rows.keys() & mine.keys():
            topic, _, number = key.rpartition(":")
            known = columns(scenario, topic) if how == "json" else None
            for name in sorted(rows[key].keys() | mine[key].keys()):
                if name in LOST.get(scenario.name, ()) or (known is not None and name not in known):
                    continue
                if rows[key].get(name) != mine[key].get(name) and not allowed(rules, topic, name, number):
                    out.append((key, name, rows[key].get(name), mine[key].get(name)))
    return out


def spoiled(scenario: Scenario) -> list[Rule]:
    path = scenario.folder / "allowed.json"
    return [Rule.read(form) for form in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def allowed(rules: list[Rule], topic: str, column: str, number: str) -> bool:
    return any(
        rule.concerns(topic, f'"id": {number}')
        and (re.search(rule.path, f"value.after.{column}") or re.search(rule.path, f"value[{column}]"))
        for rule in rules
    )


def columns(scenario: Scenario, topic: str) -> set[str]:
    """The columns that JSON shows as they are without a schema."""

    def fields(schema: Schema) -> list[Any]:
        image = next((field.schema for field in schema.fields if field.name == "after"), schema)
        return [field for field in image.fields if field.schema.type in PLAIN and field.schema.name in PLAIN_NAMES]

    versions = [{field.name for field in fields(schema)} for schema in scenario.schemas(topic, "value")]
    return set.intersection(*versions)


@pytest.mark.parametrize("how", list(CONVERTERS))
def test_redis_holds_what_postgres_holds(
    how: str, apache_kafka: ApacheKafka, redis7: Redis, schemas: Schemas, expected: dict[str, Rows]
) -> None:
    settings, properties = CONVERTERS[how]
    bench = Bench(apache_kafka, redis7, schemas, converters=properties)
    counts = feed(bench, how)
    own = {"redis.key": bench.prefix + ":{topic}:{pk}", "metadata.fields": UNWRAPPED, **settings}
    with Sink(bench, **own) as sink:

        def behind() -> list[Any]:
            assert not sink.ended(), sink.error
            return [part for part, count in counts.items() if (bench.offset(*part) or {"next": 0})["next"] < count]

        eventually(lambda: not behind(), "every partition read to its end")
    found = {key.removeprefix(f"{bench.prefix}."): row for key, row in bench.dump().items()}
    assert "\n".join(map(str, wrong(expected, found, how))) == ""
    metrics = sink.reports["metrics"]
    assert metrics["records"] == sum(counts.values())
