"""From records to batches: replays, patches, dropped columns, truncates, faults, and batches applied again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mirror_feed import TOPIC, Feed, Memory, Record, Registry, assembler

from cdc.errors import FatalError, RetriableError
from cdc.mirror.fold import DELETE, PATCH, PUT, REPLACE
from cdc.mirror.partitions import Standing, original
from cdc.mirror.store import Arrival, Partition, Previous, Refusal, StoredOffset
from cdc.mirror.tables import TableEntry, Tables
from cdc.record import HEADER_POSITION, HEADER_SOURCE, HEADER_TEXT, HEADER_UNKNOWN, Position

P0 = Partition(TOPIC, 0)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def feed(registry: Registry) -> Feed:
    return Feed(registry)


def test_rows_become_fields_under_the_key_of_the_template(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    assert made.add([feed.put(id=7, name="Ann")]) == []
    batch = made.finish()
    assert batch.ops == {b"users:7": (PUT, [b"id", b"7", b"name", b"Ann"], (b"note",), 0, 0)}
    assert batch.sources == [P0]


def test_the_offset_tells_where_the_batch_began_and_what_was_applied(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    made.add([feed.put(id=1), feed.put(id=2)])
    first = made.finish().offsets[P0]
    assert first == StoredOffset(
        2, 1_700_000_000_001, {"shop/slot": Position(1, 100, 2, 0).text().decode()}, Previous(0, {}), None, 1
    )
    made.add([feed.put(id=3)])
    second = made.finish().offsets[P0]
    assert (second.next, second.previous) == (3, Previous(2, first.positions))
    assert StoredOffset.decode(second.encode()) == second
    assert not made.finish()


def test_replays_are_dropped_and_counted_and_make_progress(registry: Registry, feed: Feed) -> None:
    """H18, A5: a position at or below the last one applied of its source."""
    stored = StoredOffset(0, positions={"shop/slot": Position(1, 100, 5, 0).text().decode()})
    made = assembler(registry, {P0: Standing(stored, None, 1)})
    replays = [feed.record(None, b"not even read", position=Position(1, 100, n, 0)) for n in (4, 5)]
    feed.ordinal = 5
    made.add([*replays, feed.put(id=1, name="new")])
    batch = made.finish()
    assert list(batch.ops) == [b"users:1"]
    assert (made.counts.replays, made.counts.records, batch.offsets[P0].next) == (2, 3, 3)


def test_a_batch_of_replays_alone_stores_its_offset_and_nothing_to_apply_again(registry: Registry, feed: Feed) -> None:
    """A33."""
    stored = StoredOffset(0, positions={"shop/slot": Position(2, 1, 1, 1).text().decode()})
    made = assembler(registry, {P0: Standing(stored, None, 1)})
    made.add([feed.put(id=1)])
    batch = made.finish()
    assert batch.ops == {}
    assert (batch.offsets[P0].next, batch.offsets[P0].previous) == (1, None)


def test_positions_of_different_sources_do_not_compare(registry: Registry, feed: Feed) -> None:
    stored = StoredOffset(0, positions={"other/slot": Position(9, 9, 9, 9).text().decode()})
    made = assembler(registry, {P0: Standing(stored, None, 1)})
    made.add([feed.put(id=1)])
    assert set(made.finish().offsets[P0].positions) == {"other/slot", "shop/slot"}
    assert made.counts.replays == 0


def test_records_without_our_headers_are_never_dropped(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    record = feed.put(id=1)
    bare = Record(5, record.key(), record.value(), None)
    again = Record(6, record.key(), record.value(), [("other", b"x")])
    made.add([bare, again])
    batch = made.finish()
    assert (made.counts.replays, made.counts.records, batch.offsets[P0].positions) == (0, 2, {})


def test_deletes_and_tombstones_remove_the_key(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    made.add([feed.delete(id=1), feed.tombstone(id=1), feed.tombstone(id=2)])
    assert {key: op[0] for key, op in made.finish().ops.items()} == {b"users:1": DELETE, b"users:2": DELETE}
    assert made.counts.deletes == 3


def test_delete_and_insert_in_one_batch_replace_the_row(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    made.add([feed.put(id=1, name="old", note="x"), feed.delete(id=1), feed.tombstone(id=1), feed.put(id=1)])
    assert made.finish().ops[b"users:1"][0] == REPLACE


def test_a12_a_changed_key_is_a_delete_and_an_insert(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    made.add([feed.delete(id=1), feed.tombstone(id=1), feed.put(id=2, name="same")])
    assert {key: op[0] for key, op in made.finish().ops.items()} == {b"users:1": DELETE, b"users:2": PUT}


def test_a9_columns_of_earlier_schemas_are_removed_and_new_ones_appear(registry: Registry, feed: Feed) -> None:
    """H23, also when this task never saw the earlier schema."""
    made = assembler(registry)
    made.add([feed.put(id=1, name="a", note="b")])
    entries = made.finish().entries
    assert entries[TOPIC].columns == ("id", "name", "note")
    feed.alter({"id": "long", "name": ["null", "string"], "age": ["null", "int"]})
    made.add([feed.put(id=1, name="a", age=3)])
    batch = made.finish()
    assert batch.ops[b"users:1"][1:3] == ([b"id", b"1", b"name", b"a", b"age", b"3"], (b"note",))
    assert batch.entries[TOPIC].columns == ("id", "name", "note", "age")
    later = assembler(registry, tables=Tables([batch.entries[TOPIC]]))
    later.add([feed.put(id=2, age=4)])
    batch = later.finish()
    assert batch.ops[b"users:2"][2] == (b"name", b"note")
    assert batch.entries == {}


def test_a10_a_row_without_any_value_has_its_key_columns(registry: Registry, feed: Feed) -> None:
    feed.alter({"id": "long", "name": ["null", "string"]})
    made = assembler(registry)
    key = feed.key({"id": 5})
    feed.alter({"name": ["null", "string"]}, key=())
    made.add([feed.record(key, feed._encoded(feed.envelope, {"before": None, "after": {"name": None}, "op": "c"}))])
    assert made.finish().ops == {b"users:5": (PUT, [b"id", b"5"], (b"name",), 0, 0)}


def test_a11_unknown_columns_are_neither_set_nor_removed(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    unknown = {HEADER_UNKNOWN: json.dumps(["note"]).encode()}
    made.add([feed.put(id=1, name="new", note="__debezium_unavailable_value", headers=unknown)])
    assert made.finish().ops[b"users:1"][:3] == (PATCH, [b"id", b"1", b"name", b"new"], ())
    made.add([feed.put(id=1, headers=unknown)])
    assert made.finish().ops[b"users:1"][:3] == (PATCH, [b"id", b"1"], (b"name",))


def test_the_text_header_overrides_values_that_the_schema_cannot_hold(registry: Registry, feed: Feed) -> None:
    micros = {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}
    feed.alter({"id": "long", "at": ["null", micros], "list": ["null", {"type": "array", "items": ["null", "long"]}]})
    made = assembler(registry)
    texts = {"at": "294276-12-31 23:59:59.999999", "list": "[0:1]={1,2}"}
    made.add([feed.put(id=1, at=5, headers={HEADER_TEXT: json.dumps(texts).encode()})])
    fields = made.finish().ops[b"users:1"][1]
    assert fields == [b"id", b"1", b"at", b"294276-12-31 23:59:59.999999", b"list", b"[0:1]={1,2}"]
    made.add([feed.put(id=1, at=5, headers={HEADER_TEXT: b'{"at": "2026-01-31 12:00:00.5"}'})])
    assert made.finish().ops[b"users:1"][1:3] == ([b"id", b"1", b"at", b"2026-01-31T12:00:00.5"], (b"list",))


def test_rows_without_key_are_counted_by_topic(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    record = feed.put(id=1)
    made.add([Record(0, None, record.value())])
    assert made.finish().offsets[P0].next == 1
    assert made.counts.keyless == {TOPIC: 1}


def test_a33_records_that_are_not_about_rows_are_counted_and_make_progress(registry: Registry, feed: Feed) -> None:
    heartbeat = {
        "type": "record",
        "name": "Heartbeat",
        "fields": [{"name": "ts_ms", "type": "long"}],
        "connect.name": "io.debezium.connector.common.Heartbeat",
    }
    made = assembler(registry)
    made.add(
        [
            Record(0, b"any key", feed._encoded(heartbeat, {"ts_ms": 1})),
            Record(1, b"x", feed._encoded(heartbeat, {"ts_ms": 2})),
        ]
    )
    batch = made.finish()
    assert (made.counts.foreign, batch.offsets[P0].next, batch.ops) == (2, 2, {})


# --- truncates -------------------------------------------------------------------------------------------


def test_a_partition_stops_at_a_truncate_with_all_before_it_in_the_batch(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    made.add([feed.put(id=1), feed.truncate(), feed.put(id=2)])
    batch = made.finish()
    assert list(batch.ops) == [b"users:1"]
    assert batch.offsets[P0].next == 1
    position = Position(1, 100, 2, 0).text().decode()
    assert made.arrivals() == [Arrival(P0, "shop/slot", position, 1)]
    assert made.arrivals() == []
    made.add([feed.put(id=3)])
    assert not made.finish()
    batch, begins = made.release([P0])
    assert begins == {P0: 2}
    assert (batch.released, batch.offsets[P0].next, batch.offsets[P0].previous) == ([P0], 2, None)
    assert batch.offsets[P0].positions == {"shop/slot": position}
    made.add([feed.put(id=4)])
    assert list(made.finish().ops) == [b"users:4"]


def test_a_replayed_truncate_is_dropped(registry: Registry, feed: Feed) -> None:
    stored = StoredOffset(0, positions={"shop/slot": Position(5, 1, 1, 1).text().decode()})
    made = assembler(registry, {P0: Standing(stored, None, 1)})
    made.add([feed.truncate()])
    assert made.arrivals() == []
    assert made.counts.replays == 1


def test_a_truncate_without_position_needs_a_topic_of_one_partition(registry: Registry, feed: Feed) -> None:
    alone = assembler(registry)
    alone.add([feed.truncate(bare=True)])
    assert [(a.source, a.offset) for a in alone.arrivals()] == [("", 0)]
    several = assembler(registry, {P0: Standing(None, None, 2)})
    several.add([feed.truncate(bare=True)])
    assert several.fault is not None
    assert "without position" in str(several.fault.error)


# --- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value_bytes": b"\0\0\0\0\x63abc"}, "no schema 99"),
        ({"value_bytes": b"{}"}, "wire format"),
        ({"value_bytes": b""}, "wire format"),
        ({"key_bytes": b"\1\0\0\0\1x"}, "wire format"),
        ({"header_list": [("cdc.source", b"s"), (HEADER_POSITION, b"zz")]}, "no position"),
        ({"header_list": [(HEADER_TEXT, b'{"id": 1}')]}, "does not fit"),
        ({"header_list": [(HEADER_UNKNOWN, b"7")]}, "no list of columns"),
    ],
)
def test_a_faulty_record_stops_its_partition_in_front_of_it(
    registry: Registry, feed: Feed, change: dict[str, Any], says: str
) -> None:
    made = assembler(registry)
    good = feed.put(id=1)
    made.add([good, replace(feed.put(id=2), **change), feed.put(id=3)])
    batch = made.finish()
    assert list(batch.ops) == [b"users:1"]
    assert batch.offsets[P0].next == 1
    assert made.fault is not None
    assert (made.fault.partition, made.fault.offset) == (P0, 1)
    assert says in str(made.fault.error)


def test_truncated_avro_is_a_fault_and_not_a_row(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    record = feed.put(id=1, name="x" * 50)
    made.add([replace(record, value_bytes=(record.value() or b"")[:-30])])
    assert made.fault is not None
    assert not made.finish().ops


def test_other_partitions_go_on_beside_a_faulty_one(registry: Registry, feed: Feed) -> None:
    other = Partition(TOPIC, 1)
    made = assembler(registry, {P0: Standing(None, None, 2), other: Standing(None, None, 2)})
    made.add([Record(0, b"bad", None), feed.put(id=2, partition=1)])
    assert list(made.finish().offsets) == [P0, other]


@pytest.mark.parametrize(
    ("key", "value", "stage"),
    [
        (None, b"\0\0\0\0\x09what", "VALUE_CONVERTER"),
        (None, b"garbage", "VALUE_CONVERTER"),
        (b"garbage", None, "KEY_CONVERTER"),
    ],
)
def test_h21_a_tolerant_one_puts_a_record_at_fault_aside_and_its_partition_goes_on(
    registry: Registry, feed: Feed, key: bytes | None, value: bytes | None, stage: str
) -> None:
    made = assembler(registry, tolerant=True)
    first = feed.put(id=1)
    bad = feed.record(feed.key({"id": 2}) if key is None else key, value)
    assert made.add([first, bad, feed.put(id=3)]) == []
    [rejected] = made.take_rejected()
    assert (rejected.message, rejected.stage) == (bad, stage)
    assert made.take_rejected() == []
    batch = made.finish()
    assert set(batch.ops) == {b"users:1", b"users:3"}
    assert (batch.offsets[P0].next, made.fault, made.counts.rejected) == (3, None, 1)


def test_a_mapping_that_breaks_is_told_as_that_of_the_store(registry: Registry, feed: Feed) -> None:
    made = assembler(registry, tolerant=True)
    texts, unknown = {HEADER_TEXT: b'{"nobody": "x"}'}, {HEADER_UNKNOWN: b"?"}
    made.add([feed.put(id=1, headers=texts), feed.put(id=2, headers=unknown)])
    assert [each.stage for each in made.take_rejected()] == ["TASK_PUT", "TASK_PUT"]
    assert made.finish().offsets[P0].next == 2


def test_records_at_fault_alone_make_progress(registry: Registry, feed: Feed) -> None:
    made = assembler(registry, tolerant=True, max_records=3)
    bad = [feed.record(b"k", b"garbage") for _ in range(5)]
    assert made.add(bad) == bad[3:]
    batch = made.finish()
    assert (batch.ops, batch.offsets[P0].next, batch.offsets[P0].previous) == ({}, 3, None)


def test_headers_that_somebody_else_made_stop_no_partition(registry: Registry, feed: Feed) -> None:
    made = assembler(registry, tolerant=True)
    odd = replace(feed.put(id=1), header_list=[(HEADER_SOURCE, b"\xff"), (HEADER_POSITION, b"\xfe" * 43)])
    short = replace(feed.put(id=2), header_list=[(HEADER_SOURCE, b"x"), (HEADER_POSITION, b"short")])
    made.add([odd, short])
    assert [each.message for each in made.take_rejected()] == [short]
    assert made.finish().offsets[P0].encode()


def test_all_records_of_a_row_that_the_store_refuses_are_put_aside(registry: Registry, feed: Feed) -> None:
    """The last one may be a part of the row."""
    made = assembler(registry, tolerant=True)
    taken = [feed.put(id=5, note="long"), feed.put(id=6)]
    part = feed.put(id=5, name="b", headers={HEADER_UNKNOWN: b'["note"]'})
    taken += [part, feed.record(b"garbage", None)]
    made.add(taken)
    made.take_rejected()
    refusals = [Refusal(b"users:5", P0, 2, "WRONGTYPE")]
    found = made.refused(refusals, taken)
    assert [(each.message, each.stage) for each in found] == [(taken[0], "TASK_PUT"), (part, "TASK_PUT")]
    assert "users:5" in str(found[0].error)
    assert "WRONGTYPE" in str(found[0].error)


def test_while_the_registry_is_away_nothing_is_taken(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    records = [feed.put(id=1), feed.put(id=2)]
    registry.away = True
    assert made.add(records) == records
    assert isinstance(made.waiting, RetriableError)
    assert not made.finish().ops
    registry.away = False
    assert made.add(records) == []
    assert made.waiting is None
    assert len(made.finish().ops) == 2


def test_a_template_that_is_no_key_of_the_table_stops_the_task(registry: Registry, feed: Feed) -> None:
    made = assembler(registry, template="user:{email}")
    with pytest.raises(FatalError, match=r"email.*not in the record key"):
        made.add([feed.put(id=1)])


def test_a_key_space_that_another_table_has_stops_the_task(registry: Registry, feed: Feed) -> None:
    """H22, whichever connector wrote it."""
    other = assembler(registry)
    other.add([feed.put(id=1)])
    theirs = replace(other.finish().entries[TOPIC], connector="other")
    made = assembler(registry, tables=Tables([theirs]))
    with pytest.raises(FatalError, match="would share keys such as b'users:0'"):
        made.add([feed.put(id=1)])


def test_a_changed_template_stops_the_task(registry: Registry, feed: Feed) -> None:
    made = assembler(registry, tables=Tables([TableEntry("sink", TOPIC, "u:{pk}")]))
    with pytest.raises(FatalError, match="would become ghosts"):
        made.add([feed.put(id=1)])


def test_a_wider_key_column_is_the_same_key_space(registry: Registry, feed: Feed) -> None:
    made = assembler(registry)
    made.add([feed.put(id=1)])
    made.finish()
    feed.alter({"id": "int", "name": ["null", "string"], "note": ["null", "string"]})
    made.add([feed.put(id=2)])
    assert made.finish().entries == {}


# --- limits, and batches applied again -------------------------------------------------------------------


def test_a_batch_is_bounded_by_records_and_by_bytes(registry: Registry, feed: Feed) -> None:
    records = [feed.put(id=n, note="x" * 100) for n in range(10)]
    made = assembler(registry, max_records=3)
    assert made.add(records) == records[3:]
    made = assembler(registry, max_bytes=250)
    assert made.add(records) == records[3:]
    assert len(made.finish().ops) == 3


def unseen(registry: Registry, feed: Feed, until: int = 3) -> tuple[Any, list[Record]]:
    """A partition whose last batch, offsets 0 to 2, was written and perhaps not seen."""
    records = [feed.put(id=1, name="a"), feed.put(id=1, name="b"), feed.put(id=2, name="c")]
    applied = {"shop/slot": Position(1, 100, 3, 0).text().decode()}
    stored = StoredOffset(until, 0, applied, Previous(0, {}))
    return assembler(registry, {P0: Standing(stored, None, 1)}, max_records=2), records


def test_a_batch_whose_outcome_nobody_saw_is_applied_again_whole(registry: Registry, feed: Feed) -> None:
    """H21: in one batch, whatever its bound, although the store says that it is applied."""
    made, records = unseen(registry, feed)
    assert made.begins() == {P0: 0}
    assert made.add(records[:2]) == []
    assert not made.finish()
    assert made.add([records[2]]) == []
    assert not made.finish(), "it may not be complete yet"


def test_the_batch_is_complete_with_the_first_record_behind_it(registry: Registry, feed: Feed) -> None:
    made, records = unseen(registry, feed)
    made.add(records)
    made.add([feed.put(id=3)])
    batch = made.finish()
    assert [(key, dict(zip(op[1][::2], op[1][1::2], strict=True)).get(b"name")) for key, op in batch.ops.items()] == [
        (b"users:1", b"b"),
        (b"users:2", b"c"),
        (b"users:3", None),
    ]
    assert batch.offsets[P0].previous == Previous(0, {})


def test_the_batch_is_complete_at_the_end_of_the_partition(registry: Registry, feed: Feed) -> None:
    made, records = unseen(registry, feed, until=9)
    made.add(records[:1])
    made.end_reached(P0, 8)
    assert not made.finish()
    made.end_reached(P0, 9)
    batch = made.finish()
    assert list(batch.ops) == [b"users:1"]
    assert batch.offsets[P0].next == 9


def test_replays_inside_the_batch_are_dropped_again(registry: Registry, feed: Feed) -> None:
    records = [feed.put(id=1, name="a"), feed.put(id=2, name="b")]
    before = {"shop/slot": Position(1, 100, 1, 0).text().decode()}
    stored = StoredOffset(2, 0, {"shop/slot": Position(1, 100, 2, 0).text().decode()}, Previous(0, before))
    made = assembler(registry, {P0: Standing(stored, None, 1)})
    made.add(records)
    made.end_reached(P0, 2)
    assert list(made.finish().ops) == [b"users:2"]


def test_with_the_registry_away_the_batch_waits_as_a_whole(registry: Registry, feed: Feed) -> None:
    made, records = unseen(registry, feed)
    made.add(records)
    registry.away = True
    behind = feed.put(id=3)
    assert made.add([behind]) == [behind]
    assert isinstance(made.waiting, RetriableError)
    with pytest.raises(RetriableError):
        made.end_reached(P0, 4)
    assert not made.finish().ops
    registry.away = False
    assert made.add([behind]) == []
    assert len(made.finish().ops) == 3


def test_a_fault_inside_the_batch_is_put_aside_by_a_tolerant_one(registry: Registry, feed: Feed) -> None:
    records = [feed.put(id=1), feed.record(b"k", b"\0\0\0\0\x09what"), feed.put(id=2), feed.put(id=3)]
    stored = StoredOffset(3, previous=Previous(0, {}))
    made = assembler(registry, {P0: Standing(stored, None, 1)}, tolerant=True)
    assert made.add(records) == []
    assert [original(each.message) for each in made.take_rejected()] == [records[1]]
    assert [original(message) for message in made.take_again()] == records[:3]
    batch = made.finish()
    assert set(batch.ops) == {b"users:1", b"users:2", b"users:3"}
    assert batch.offsets[P0].next == 4


def test_a_fault_inside_the_batch_applies_none_of_it(registry: Registry, feed: Feed) -> None:
    made, records = unseen(registry, feed)
    made.add([records[0], Record(1, b"\0\0\0\0\x63", None), records[2]])
    made.add([feed.put(id=3)])
    assert not made.finish().ops
    assert made.fault is not None
    assert made.fault.offset == 1


# --- histories -------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "delete"]), st.integers(0, 3), st.booleans()), min_size=1, max_size=14
    ),
    st.integers(0, 2**32),
)
def test_a3_a4_any_batches_any_crashes_any_replays_end_in_the_same_rows(
    history: list[tuple[str, int, bool]], seed: int
) -> None:
    """A1-A8: batches cut anywhere, crashes before and after a batch is applied, records of the source twice: at the
    end the store has the rows, and at no moment an older value than before of a key that lives."""
    rng = random.Random(seed)
    registry = Registry()
    feed = Feed(registry)
    log: list[Record] = []
    expected: dict[bytes, dict[bytes, bytes]] = {}
    for number, (verb, key, named) in enumerate(history):
        row_key = b"users:%d" % key
        if verb == "put":
            log.append(feed.put(id=key, name=f"n{number}" if named else None, note=str(number)))
            expected[row_key] = {b"id": b"%d" % key, b"note": b"%d" % number}
            if named:
                expected[row_key][b"name"] = b"n%d" % number
        else:
            log += [feed.delete(id=key), feed.tombstone(id=key)]
            expected.pop(row_key, None)
    again = rng.randint(0, len(log))  # at-least-once: the source sends a suffix of what it sent once more
    log += [replace(record, at=len(log) + n) for n, record in enumerate(log[again:])]

    store = Memory()
    newest: dict[bytes, int] = {}
    while store.offsets.get(P0, StoredOffset(0)).next < len(log):
        standing = Standing(store.offsets.get(P0), None, 1)
        made = assembler(registry, {P0: standing}, store.tables, max_records=rng.randint(1, 5))
        at = made.begins()[P0] or 0
        alive = True
        while alive and at < len(log):
            pending = log[at : at + rng.randint(1, 6)]
            at += len(pending)
            while alive and pending:
                pending = made.add(pending)
                if not pending and at == len(log):
                    made.end_reached(P0, at)
                batch = made.finish()
                alive = rng.random() > 0.2  # a crash before the write, or right behind it
                if alive or rng.random() > 0.5:
                    store.write(batch)
                for key, row in store.rows.items():
                    assert int(row[b"note"]) >= newest.get(key, -1), "an older value than before"
                    newest[key] = int(row[b"note"])
    assert store.rows == expected
