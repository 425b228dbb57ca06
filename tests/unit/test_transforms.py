"""Transforms beyond what Debezium's recorded histories show (tests/integration/test_golden.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.codec.envelope import envelope_schema, key_schema, row_schema
from cdc.config import Step
from cdc.errors import ConfigError, DataError
from cdc.plugin import Transform
from cdc.record import Column, ConnectRecord, Schema
from cdc.runtime.source_transforms import Chain
from cdc.transforms.logical_router import ByLogicalTableRouter
from cdc.transforms.outbox import EventRouter
from cdc.transforms.outbox_json import expanded
from cdc.transforms.partition_routing import PartitionRouting, java_hash
from cdc.transforms.predicates import HasHeaderKey, RecordIsTombstone, TopicNameMatches
from cdc.transforms.settings import java_pattern, java_replacement
from cdc.transforms.timezone import TimezoneConverter
from cdc.transforms.unwrap import ExtractNewRecordState

TOPIC = "shop.public.t"
COLUMNS = [
    Column("id", Schema("int32"), "int"),
    Column("v", Schema("string", optional=True), "text"),
    Column("at", Schema("string", optional=True, name="io.debezium.time.ZonedTimestamp", version=1), "text"),
    Column("ts", Schema("int64", optional=True, name="io.debezium.time.MicroTimestamp", version=1), "timestamp"),
    Column("t", Schema("string", optional=True, name="io.debezium.time.ZonedTime", version=1), "text"),
]
ENVELOPE = envelope_schema(TOPIC, row_schema(TOPIC, COLUMNS))
KEY = key_schema(TOPIC, COLUMNS[:1])
TOMBSTONE = ConnectRecord(TOPIC, KEY, {"id": 1}, None, None)


def row(**values: Any) -> dict[str, Any]:
    return {"id": 1, "v": "x", "at": None, "ts": None, "t": None, **values}


def change(op: str, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> ConnectRecord:
    value = {"before": before, "after": after, "source": {"table": "t", "lsn": 5}, "transaction": None, "op": op}
    return ConnectRecord(TOPIC, KEY, {"id": 1}, ENVELOPE, {**value, "ts_ms": 1, "ts_us": 1000, "ts_ns": 10**6})


def made(transform: Transform, **settings: str) -> Any:
    transform.configure({name.replace("_", "."): value for name, value in settings.items()})
    return transform


def test_what_is_no_change_of_a_row_passes_every_transform_as_it_is() -> None:
    beat = ConnectRecord("beats", None, None, Schema("struct", name="io.debezium.Heartbeat"), {})
    transforms = [
        made(ExtractNewRecordState(), add_fields="op"),
        made(EventRouter()),
        made(ByLogicalTableRouter(), topic_regex=".*", topic_replacement="all"),
        made(PartitionRouting(), partition_payload_fields="change.v", partition_topic_num="3"),
        made(TimezoneConverter(), converted_timezone="+02:00"),
    ]
    assert [transform.apply(beat) for transform in transforms] == [beat] * len(transforms)


def test_a_null_stays_null_when_a_row_is_unwrapped_and_its_schema_is_made_once() -> None:
    unwrap = made(ExtractNewRecordState(), route_by_field="v")
    records = [unwrap.apply(change("c", None, row(v="elsewhere"))) for _ in range(2)]
    assert records[0].topic == "elsewhere"
    assert records[0].value == row(v="elsewhere")
    assert records[0].value_schema is records[1].value_schema


def test_a_truncate_is_no_row() -> None:
    assert made(ExtractNewRecordState()).apply(change("t")) is None


def test_a_field_that_the_envelope_does_not_have_is_refused() -> None:
    with pytest.raises(DataError, match=r"no field source\.nope"):
        made(ExtractNewRecordState(), add_fields="nope").apply(change("c", None, row()))


def test_fields_of_a_missing_transaction_block_are_null() -> None:
    record = made(ExtractNewRecordState(), add_fields="total_order", add_headers="id").apply(change("c", None, row()))
    assert record.value["__total_order"] is None
    assert record.headers == (("__id", None),)


def test_a_field_twice_is_refused_at_load() -> None:
    with pytest.raises(ConfigError, match="__op would be there twice"):
        made(ExtractNewRecordState(), add_fields="op,op")


def test_updates_of_an_outbox_are_no_events_and_may_be_fatal() -> None:
    update = change("u", None, row())
    assert made(EventRouter()).apply(update) is None
    with pytest.raises(DataError, match="was updated"):
        made(EventRouter(), table_op_invalid_behavior="fatal").apply(update)


def test_a_table_that_is_no_outbox_is_refused_with_its_columns() -> None:
    with pytest.raises(DataError, match=r"no column aggregatetype; its columns are id, v"):
        made(EventRouter()).apply(change("c", None, row()))


def test_events_go_where_their_settings_say() -> None:
    router = made(
        EventRouter(),
        table_field_event_payload="v",
        route_by_field="v",
        table_field_event_key="id",
        table_field_event_timestamp="ts",
        table_fields_additional_placement="id:partition,at:header",
        route_topic_regex="(x)(.*)",
        route_topic_replacement="$1.$2",
    )
    event = router.apply(change("c", None, row(v="xyz", ts=5_000_000)))
    assert (event.topic, event.partition, event.timestamp) == ("x.yz", 1, 5000)
    assert event.headers == (("id", b"1"), ("at", None))


def test_an_empty_payload_may_be_a_tombstone() -> None:
    router = made(
        EventRouter(),
        table_field_event_payload="at",
        route_by_field="v",
        route_tombstone_on_empty_payload="true",
    )
    event = router.apply(change("c", None, row()))
    assert (event.value, event.value_schema) == (None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": {"c": null, "d": [1, 5000000000]}}', {"a": 1, "b": {"d": [1, 5_000_000_000]}}),
        ('[{"a": 1}, {"b": "x"}]', [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ("[[1], [2]]", [[1], [2]]),
    ],
)
def test_json_gets_one_schema(text: str, value: Any) -> None:
    found = expanded(text, "payload", optional_bytes=False)
    assert found is not None
    assert found[0] == value


@pytest.mark.parametrize("text", ['[1, "x"]', "plain", "{broken", '"text"', '{"n": 99999999999999999999}', "[]"])
def test_what_has_no_schema_stays_text(text: str) -> None:
    assert expanded(text, "payload", optional_bytes=False) is None


def test_nulls_may_be_bytes() -> None:
    found = expanded('{"a": null}', "payload", optional_bytes=True)
    assert found is not None
    assert found[1].fields[0].schema == Schema("bytes", optional=True)


def test_tables_share_a_topic_with_keys_of_their_own_or_without() -> None:
    told = made(ByLogicalTableRouter(), topic_regex=r"shop\.(?<schema>.*)\.t", topic_replacement="${schema}-all")
    record = told.apply(change("c", None, row()))
    assert record.topic == "public-all"
    assert record.key == {"id": 1, "__dbz__physicalTableIdentifier": TOPIC}
    assert told.apply(TOMBSTONE).key == record.key
    shared = made(
        ByLogicalTableRouter(), topic_regex=".*", topic_replacement="all", key_enforce_uniqueness="false"
    ).apply(TOMBSTONE)
    assert (shared.key, shared.key_schema) == ({"id": 1}, replace(KEY, name="all.Key"))


@pytest.mark.parametrize(
    ("regex", "replacement", "key"),
    [("(", "x", "topic.regex"), ("(.*)", "$2", "topic.replacement"), ("(.*)", "${name}", "topic.replacement")],
)
def test_a_route_that_cannot_be_is_refused_at_load(regex: str, replacement: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(ByLogicalTableRouter(), topic_regex=regex, topic_replacement=replacement)
    assert [finding.key for finding in caught.value.findings] == [key]


def test_a_tombstone_follows_its_delete_into_the_partition() -> None:
    routing = made(PartitionRouting(), partition_payload_fields="change.v", partition_topic_num="7")
    partition = routing.apply(change("c", None, row(v="us"))).partition
    assert partition == 3742 % 7
    assert routing.apply(change("d", row(v="us"))).partition == partition
    assert routing.apply(TOMBSTONE).partition == partition
    assert routing.apply(TOMBSTONE).partition is None
    assert routing.apply(change("c", None, row(v=None))).partition is None


@pytest.mark.parametrize(
    ("kind", "value", "number"),
    [
        ("string", "asia", 3003594),
        ("int32", -1, 0xFFFFFFFF),
        ("int64", 2**32, 1),
        ("int64", -1, 0),
        ("boolean", True, 1231),
        ("float64", 1.0, None),
    ],
)
def test_hashes_are_those_of_java(kind: str, value: Any, number: int | None) -> None:
    assert java_hash(Schema(kind), value) == number


def test_rows_may_be_routed_by_no_field_whose_hash_differs_from_run_to_run() -> None:
    routing = made(PartitionRouting(), partition_payload_fields="after", partition_topic_num="7")
    with pytest.raises(DataError, match="no hash"):
        routing.apply(change("c", None, row()))


@pytest.mark.parametrize(
    ("zone", "at", "found"),
    [
        ("+05:30", "2024-06-01T12:00:00.100000Z", "2024-06-01T17:30:00.1+05:30"),
        ("Europe/Warsaw", "2024-01-01T23:30:00Z", "2024-01-02T00:30:00+01:00"),
        ("UTC", "2024-01-01T23:30:00.000000Z", "2024-01-01T23:30:00Z"),
        ("-03:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("-03:00", "+12024-01-01T00:00:00Z", "+12024-01-01T00:00:00Z"),
        ("-03:00", "infinity", "infinity"),
    ],
)
def test_moments_are_told_in_the_zone(zone: str, at: str, found: str) -> None:
    converter = made(TimezoneConverter(), converted_timezone=zone)
    assert converter.apply(change("c", None, row(at=at))).value["after"]["at"] == found


def test_times_in_the_zone_and_timestamps_as_of_the_zone() -> None:
    converter = made(TimezoneConverter(), converted_timezone="+05:30")
    found = converter.apply(change("c", None, row(t="20:00:00.5Z", ts=0))).value["after"]
    assert (found["t"], found["ts"]) == ("01:30:00.5+05:30", -19_800_000_000)
    far = 9223372036825200000  # infinity
    assert converter.apply(change("c", None, row(t="24:00:00Z", ts=far))).value["after"] == row(t="24:00:00Z", ts=far)


@pytest.mark.parametrize(
    ("setting", "entry", "converted"),
    [
        ("include_list", "source:t:ts", True),
        ("include_list", "t", True),
        ("include_list", f"topic:{TOPIC}:at", False),
        ("exclude_list", f"{TOPIC}:ts", False),
        ("exclude_list", "source:other", True),
    ],
)
def test_columns_are_chosen(setting: str, entry: str, converted: bool) -> None:
    converter = made(TimezoneConverter(), converted_timezone="+01:00", **{setting: entry})
    assert (converter.apply(change("c", None, row(ts=0))).value["after"]["ts"] != 0) is converted


@pytest.mark.parametrize("zone", ["Nowhere/Town", "+19:00", "../etc"])
def test_a_zone_that_is_none_is_refused_at_load(zone: str) -> None:
    with pytest.raises(ConfigError, match="is no time zone"):
        made(TimezoneConverter(), converted_timezone=zone)


def test_predicates() -> None:
    header, tombstone, topic = HasHeaderKey(), RecordIsTombstone(), TopicNameMatches()
    header.configure({"name": "h"})
    tombstone.configure({})
    topic.configure({"pattern": r"shop\..*"})
    marked = replace(change("c", None, row()), headers=(("h", b""),), topic="x.shop.y")
    assert [each.test(marked) for each in (header, tombstone, topic)] == [True, False, False]
    assert [each.test(TOMBSTONE) for each in (header, tombstone, topic)] == [False, True, True]


def test_java_writes_groups_another_way() -> None:
    pattern = java_pattern("(?<name>a)(?<!b)(.)")
    match = pattern.fullmatch("ac")
    assert match is not None
    assert match.expand(java_replacement(pattern, r"${name}-$2\$1")) == "a-c$1"


def test_what_transforms_do_to_the_place_of_rows_is_known() -> None:
    """Only where a row's records keep topic and key, keys of rows that are gone can be found (H11)."""
    assert made(ExtractNewRecordState()).keeps_place
    assert not made(ExtractNewRecordState(), route_by_field="v").keeps_place
    assert made(TimezoneConverter(), converted_timezone="UTC").keeps_place
    assert not made(EventRouter()).keeps_place
    assert not made(ByLogicalTableRouter(), topic_regex="(.*)", topic_replacement="all").keeps_place


def test_a_chain_says_which_removals_it_drops() -> None:
    plain = Chain([Step(made(ExtractNewRecordState())), Step(made(TimezoneConverter(), converted_timezone="UTC"))])
    assert plain.keeps_place
    (warning,) = plain.warnings()
    assert "ExtractNewRecordState drops records of TRUNCATE:" in warning
    (warning,) = Chain([Step(made(ExtractNewRecordState(), delete_tombstone_handling_mode="drop"))]).warnings()
    assert "DELETE and TRUNCATE" in warning
