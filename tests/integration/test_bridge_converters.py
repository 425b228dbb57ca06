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
}


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
