"""What must not be told is told nowhere: not in records, headers or logs, not in Redis; and `cdc verify` knows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fix_bridge import bridged
from structlog.testing import capture_logs

from cdc.local.kafka import EmbeddedKafka
from cdc.local.redis import Valkey
from cdc.operate.verify import wait_until_equal
from cdc.record import UNCHANGED
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail

pytestmark = pytest.mark.integration

SECRET = "5ecre7"
DIGITS = "731173117311"

TABLE = f"""
create table people (id int primary key, phone text not null default '{SECRET}', ssn bigint, code uuid, debt numeric,
    mail varchar(20), note text, prefs jsonb, tags text[], gone text);
alter table people alter note set storage external, replica identity full;
insert into people values
 (1, '{SECRET}', {DIGITS}, 'a0eebc99-9c0b-4ef8-bb6d-{DIGITS}', {DIGITS}.5, '{SECRET}',
  repeat('{SECRET}', 900),
  '{{"a": "{SECRET}"}}', array['{SECRET}'], '{SECRET}'),
 (2, '', null, null, null, null, null, null, null, null);
"""

MASKS = {
    "column.mask.with.3.chars": "public.people.(phone|ssn|debt)",
    "column.mask.hash.SHA-256.with.salt.pepper": "public.people.(code|mail|prefs)",
    "column.mask.hash.v2.SHA-512.with.salt.pepper": "public.people.(note|tags)",
    "column.truncate.to.2.chars": "public.people.gone",
}
CHANGES = (
    "update people set ssn = ssn + 1",
    f"insert into people select 3, '{SECRET}', {DIGITS}, code, debt, mail, note, prefs, tags, gone from people"
    " where id = 1",
    "update people set id = 4 where id = 3",
    "delete from people where id = 1",
)


def test_a_masked_value_is_in_no_record_header_or_log(database18: Database) -> None:
    database18.execute(TABLE)
    source = Tail(database18, **{name.replace(".", "_"): value for name, value in MASKS.items()})
    with capture_logs() as logs:
        try:
            source.start().until(lambda: len(source.records) == 2)
            for change in CHANGES:
                database18.execute(change)
            source.until(lambda: len(source.records) == 10)
        finally:
            source.stop()
    told: list[Any] = list(logs)
    for change in source.records:
        rows = [row for row in (change.before, change.after, change.key_row) if row is not None]
        assert all(value is not UNCHANGED for row in rows for value in row)
        told += [rows, change.headers, change.shape.envelope_schema]
    assert not re.search(f"{SECRET}|{DIGITS}", repr(told))
    first, second = (change.after for change in source.records[:2])
    assert first is not None
    assert second is not None
    assert first[1:3] == [b"***", b"***"]
    assert second[1:] == [b"***", *[None] * 8]
    assert first[9] == SECRET[:2].encode()
    after = {column.name: column.schema for column in source.records[0].shape.columns}
    assert (after["ssn"].type, after["ssn"].optional) == ("string", True)
    assert (after["gone"].type, after["gone"].parameters) == ("string", (("truncateLength", "2"),))


REST = """
create table part (id int, region text, v int, primary key (id, region)) partition by list (region);
create table part_eu partition of part for values in ('eu');
create table part_us (v int, region text not null, id int not null);
alter table part attach partition part_us for values in ('us');
insert into part select i, case i % 2 when 0 then 'eu' else 'us' end, i from generate_series(1, 200) i;
create table uniq (a int not null unique, b text, g int generated always as (a * 2) stored);
alter table uniq replica identity full;
insert into uniq select i, 'b' || i from generate_series(1, 200) i;
create table few (id int primary key, keep boolean not null, hidden text, internal text);
create unique index few_i on few (id, keep);
alter table few replica identity using index few_i;
insert into few select i, i % 3 = 0, 'hidden', 'internal' from generate_series(1, 200) i;
create publication made for table part, uniq, people, few (id, keep, internal) where (keep)
    with (publish_via_partition_root, publish_generated_columns = stored);
"""


def test_a_bridge_with_everything_left_out_or_hidden_verifies_equal(
    database18: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    """Masks, column lists, row filters, partitions, generated columns and keys of unique indexes, seen by `verify`."""
    database18.execute(TABLE + REST)
    lines = [f'"{name}": "{value}"' for name, value in MASKS.items()]
    lines += ['column.exclude.list: "public.few.internal"', "publication.name: made"]
    settings = {"    database.hostname": "".join(f"    {line}\n" for line in lines) + "    database.hostname"}
    with bridged(database18, embedded_kafka, valkey9, "public.(people|part|uniq|few)", settings) as bridge:
        for change in (
            *CHANGES,
            "update part set region = 'us', v = v + 1 where region = 'eu' and id < 50",
            "delete from part_us where id < 20",
            "update uniq set a = a + 1000 where a < 10",
            "update few set keep = not keep where id < 100",
            "update few set hidden = 'changed'",
        ):
            database18.execute(change)
        report = wait_until_equal(bridge.config, 60)
        assert report.equal, report.as_text()
        names = {table.table for table in report.tables}
        assert names == {"public.people", "public.part", "public.uniq", "public.few"}
        values = [bridge.redis.hgetall(key) for key in bridge.redis.scan_iter(match=f"{bridge.name}:*")]
        assert not re.search(f"{SECRET}|{DIGITS}|hidden|internal", repr(values))
        assert bridge.hash(f"{bridge.name}:uniq:1005") == {"a": "1005", "b": "b5", "g": "2010"}


def test_rows_are_told_again_when_columns_are_hidden_in_another_way(database18: Database) -> None:
    database18.execute(
        "create table t (id int primary key, a text, b text); insert into t values (1, 'a', 'b'), (2, 'a', 'b')"
    )
    histories = [
        ({}, [b"1", b"a", b"b"]),
        ({"column_mask_with_2_chars": "public.t.a"}, [b"1", b"**", b"b"]),
        ({"column_mask_with_2_chars": "public.t.a", "column_exclude_list": "public.t.b"}, [b"1", b"**"]),
        ({"column_exclude_list": "public.t.b"}, [b"1", b"a"]),
    ]
    stored: dict[str, Any] = {}
    for settings, expected in histories:
        source = Tail(database18, **settings)
        source.stored = dict(stored)
        try:
            source.start().until(lambda source=source: len(source.rows("t")) == 2)  # type: ignore[misc]
            assert source.rows("t")[(b"1",)] == expected
            source.until(source.snapshot_done)
            stored = source.stored
            source.stop()
            database18.execute("insert into t values (9, 'a', 'b')")
            source.start().until(lambda source=source: (b"9",) in source.rows("t"))  # type: ignore[misc]
            assert len(source.records) == 3  # nothing was read again
            database18.execute("delete from t where id = 9")
            source.until(lambda source=source: (b"9",) not in source.rows("t"))  # type: ignore[misc]
            stored = source.stored
        finally:
            source.stop()
