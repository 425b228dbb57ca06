"""The whole bridge with other converters than Avro: Redis equals Postgres all the same."""

from __future__ import annotations

import pytest

from tests.integration.test_bridge import SHOP, TYPES, Bridge, apache

__all__ = ["apache"]

pytestmark = pytest.mark.integration

CONVERTERS = {
    "json with schemas": ("json", "org.apache.kafka.connect.json.JsonConverter", ""),
    "protobuf": ("protobuf", "io.confluent.connect.protobuf.ProtobufConverter", ""),
    "json keys without schemas, values in json schema": ("json", "jsonschema", "key.converter.schemas.enable: false"),
    "json without schemas": (
        "json",
        "json",
        "key.converter.schemas.enable: false\n  value.converter.schemas.enable: false",
    ),
}
KEYS = {
    "date": "date '2026-01-01' + {0}",
    "timestamptz": "timestamptz '2026-01-01 12:00:00.000001+00' + interval '1 microsecond' * {0}",
    "numeric(10, 2)": "{0} * 1.10",
    "float8": "{0} / 3.0",
    "uuid": "md5({0}::text)::uuid",
    "text": "'=:}}' || {0}",
}
"""Types of keys of one column, and how a number makes one."""


@pytest.mark.parametrize("converters", list(CONVERTERS))
def test_redis_equals_postgres_with_other_converters(apache: Bridge, converters: str) -> None:
    """Every type from snapshot and stream, changed keys, truncates of several partitions, NULLed columns."""
    key, value, more = CONVERTERS[converters]
    apache.worker_settings = f"key.converter: {key}\n  value.converter: {value}\n  {more}"
    apache.source = "topic.creation.default.partitions: 2"
    apache.database.execute(TYPES)
    apache.database.execute(SHOP)
    with apache.running():
        apache.equal()
        for statement in (
            "create temp table c as table kinds; update c set id = id + 100; insert into kinds table c",
            "update customers set tier = null where id % 2 = 0",
            "update customers set id = id + 1000 where id <= 20",
            "delete from customers where id between 50 and 60",
            "update orders set line = line || ':' where customer < 10",
        ):
            apache.database.execute(statement)
        apache.equal()
        apache.database.execute("truncate orders")
        apache.database.execute("insert into orders values (1, 'after', 1, 1)")
        report = apache.equal()
    assert report.rows == 8 + 289 + 1


@pytest.mark.parametrize("converter", ["string", "json"])
def test_keys_of_any_type_without_schema_are_those_of_postgres(apache: Bridge, converter: str) -> None:
    """Inserted, changed, deleted, and told again from the beginning by a source that lost its mind."""
    apache.worker_settings = (
        f"key.converter: {converter}\n  key.converter.schemas.enable: false\n"
        "  value.converter: json\n  value.converter.schemas.enable: false"
    )
    made = dict(KEYS) if converter == "string" else {**KEYS, "bytea": "decode(md5({0}::text), 'hex')"}
    for number, (kind, key) in enumerate(made.items()):
        apache.database.execute(f"create table k{number} (id {kind} primary key, at timestamptz, by bytea)")
        rows = f"insert into k{number} select {key.format('i')}, now(), decode(md5(i::text), 'hex')"
        apache.database.execute(f"{rows} from generate_series(1, 5) i")
    with apache.running():
        apache.equal()
        for number, key in enumerate(made.values()):
            apache.database.execute(f"update k{number} set id = {key.format('11')} where id = {key.format('1')}")
            apache.database.execute(f"delete from k{number} where id = {key.format('2')}")
            apache.database.execute(f"update k{number} set at = null where id = {key.format('3')}")
        report = apache.equal()
    assert report.rows == 4 * len(made)
