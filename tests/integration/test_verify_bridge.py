"""Verify against a running bridge: finds what was planted, and nothing else while rows change under it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from confluent_kafka import Producer
from fix_bridge import Bridge, bridged
from fix_servers import fresh_database
from sink_feed import eventually

from cdc.errors import ConfigError
from cdc.kafka.reader import TopicReader
from cdc.local.kafka import ApacheKafka
from cdc.local.postgres import EmbeddedPostgres
from cdc.local.redis import Valkey
from cdc.operate.verify import compare, run_verify, wait_until_equal

pytestmark = pytest.mark.integration

SCHEMA = """
CREATE DOMAIN flag AS boolean;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE people (
    id bigint PRIMARY KEY, name text, active flag, feels mood[], balance numeric(12, 3), seen timestamptz, data bytea,
    doubled bigint GENERATED ALWAYS AS (id * 2) STORED
);
CREATE TABLE lines (code text, n smallint, note text, PRIMARY KEY (n, code));
CREATE TABLE log (at timestamptz DEFAULT now(), what text);
ALTER TABLE log REPLICA IDENTITY FULL;
INSERT INTO people (id, name, active, feels, balance, seen, data)
SELECT n, 'name ' || n, n % 2 = 0, ARRAY['sad', NULL]::mood[], n / 7.0, '2026-01-31 12:00:00+01',
    decode(md5(n::text), 'hex')
FROM generate_series(1, 3000) n;
INSERT INTO lines SELECT 'a:b\\' || n, n, NULLIF('note ' || n, 'note 3') FROM generate_series(1, 50) n;
INSERT INTO log (what) VALUES ('begun');
"""


@pytest.fixture(scope="module")
def bridge(postgres18: EmbeddedPostgres, apache_kafka: ApacheKafka, valkey9: Valkey) -> Iterator[Bridge]:
    with fresh_database(postgres18) as database:
        database.execute(SCHEMA)
        with bridged(database, apache_kafka, valkey9, "public.people, public.lines, public.log") as running:
            yield running


def test_equal_ends_are_equal_and_keyless_tables_are_named(bridge: Bridge) -> None:
    report = compare(bridge.config)
    assert report.equal, report.as_text()
    assert {table.table: (table.rows, table.fields, table.keys) for table in report.tables} == {
        "public.people": (3000, 3000 * 8, 3000),
        "public.lines": (50, 150, 50),
    }
    [skipped] = report.not_compared
    assert skipped.table == "public.log"
    assert "no primary key" in skipped.reason


def _delete(bridge: Bridge) -> None:
    bridge.redis.delete(f"{bridge.name}:people:7")


def _add(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:people:999999", mapping={"id": "999999", "name": "nobody"})


def _add_line(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:lines:4:no\\:body", mapping={"n": "4", "code": "no:body"})


def _alter(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:people:8", "name", "name 9")


def _extend(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:people:9", "extra", "1")


def _shorten(bridge: Bridge) -> None:
    bridge.redis.hdel(f"{bridge.name}:people:10", "balance")


def _retype(bridge: Bridge) -> None:
    bridge.redis.delete(f"{bridge.name}:people:11")
    bridge.redis.set(f"{bridge.name}:people:11", "a string")


DRIFT = [
    (_delete, ("missing", "people:7", [])),
    (_add, ("ghost", "people:999999", [])),
    (_add_line, ("ghost", "lines:4:no\\:body", [])),
    (_alter, ("different", "people:8", [("name", "name 8", "name 9")])),
    (_extend, ("different", "people:9", [("extra", None, "1")])),
    (_shorten, ("different", "people:10", [("balance", "1.429", None)])),
    (_retype, ("different", "people:11", [("(the key)", "a hash", "another type of value")])),
]


def test_planted_drift_is_found_all_of_it_and_nothing_else(bridge: Bridge) -> None:
    saved = {key: bridge.redis.dump(f"{bridge.name}:people:{key}") for key in range(7, 12)}
    for plant, _ in DRIFT:
        plant(bridge)
    try:
        report = compare(bridge.config)
    finally:
        for key, dumped in saved.items():
            bridge.redis.restore(f"{bridge.name}:people:{key}", 0, dumped, replace=True)
        bridge.redis.delete(f"{bridge.name}:people:999999", f"{bridge.name}:lines:4:no\\:body")
    found = {
        (drift.kind, drift.key, tuple((field.field, field.expected, field.found) for field in drift.fields))
        for table in report.tables
        for drift in table.drifts
    }
    assert found == {(kind, f"{bridge.name}:{key}", tuple(fields)) for _, (kind, key, fields) in DRIFT}
    assert (report.undecided, report.exit_status) == (0, 1)
    assert compare(bridge.config).equal


def test_a27_a_repair_mends_what_was_planted_and_nothing_else_while_rows_change(bridge: Bridge) -> None:
    planted = [plant for plant in DRIFT if plant[0] is not _retype]
    with hot(bridge, "update people set balance = balance + 1 where id = 100 + (random() * 100)::int"):
        for plant, _ in planted:
            plant(bridge)
        told: list[str] = []
        assert run_verify(bridge.config, output="json", echo=told.append, mend=True) == 0
    value = json.loads(told.pop())
    assert (value["equal"], value["differing"]) == (True, 0)
    assert {one["table"]: (one["written"], one["removed"], one["refused"]) for one in value["repaired"]} == {
        "public.people": (4, 1, ""),
        "public.lines": (0, 1, ""),
    }
    assert run_verify(bridge.config, echo=told.append, mend=True) == 0
    assert "repaired" not in told.pop()


def test_a_repair_has_the_source_tell_again_what_the_topic_has_wrong(bridge: Bridge, apache_kafka: ApacheKafka) -> None:
    topic = f"{bridge.name}.public.people"
    records = {}
    with closing(TopicReader({"bootstrap.servers": apache_kafka.bootstrap_servers}, topic, "test")) as reader:
        end = reader.bounds([0])[0][1]
        reader.go({0: None})
        while reader.positions[0] < end:
            records.update({zigzag(record.key()): record for record in reader.fetch(1000, 0.1)})
    bridge.database.execute("delete from people where id = 2222")
    assert wait_until_equal(bridge.config, 30).equal
    producer = Producer({"bootstrap.servers": apache_kafka.bootstrap_servers})
    for key, value in (
        (1234, None),  # a delete that never was
        (2222, records[2222].value()),  # a row that is no more
    ):
        producer.produce(topic, key=records[key].key(), value=value, partition=0)
        producer.flush(30)
        eventually(lambda: not compare(bridge.config, table="public.people").equal)
        told: list[str] = []
        assert run_verify(bridge.config, table="public.people", output="json", echo=told.append, mend=True) == 0
        first, second = json.loads(told.pop())["repaired"]
        assert (first["written"], first["removed"], second["told"], second["refused"]) == (0, 0, 1, "")


def zigzag(key: bytes) -> int:
    """The long in an Avro key of one column."""
    number = shift = 0
    for byte in key[5:]:
        number |= (byte & 0x7F) << shift
        shift += 7
    return number >> 1


def test_what_a_repair_must_leave_alone_is_told(bridge: Bridge) -> None:
    saved = bridge.redis.dump(f"{bridge.name}:people:11")
    _retype(bridge)
    try:
        told: list[str] = []
        assert run_verify(bridge.config, echo=told.append, mend=True) == 1
        assert any("1 keys hold something else than a row: remove or rename them" in line for line in told)
    finally:
        bridge.redis.restore(f"{bridge.name}:people:11", 0, saved, replace=True)


def test_keys_that_no_row_can_have_are_named_and_are_no_difference(bridge: Bridge) -> None:
    keys = [f"{bridge.name}:lines:70000:x", f"{bridge.name}:people:99999999999999999999"]
    for key in keys:
        bridge.redis.hset(key, "a", "b")
    try:
        report = compare(bridge.config)
    finally:
        bridge.redis.delete(*keys)
    assert report.equal, report.as_text()
    assert sorted(key for table in report.tables for key in table.foreign_keys) == keys


def test_no_false_alarm_while_rows_change_all_the_time(bridge: Bridge) -> None:
    with (
        hot(
            bridge,
            "update people set balance = balance + 1, name = repeat('x', 1 + (random() * 50)::int), "
            "active = nullif(random() < 0.5, true) where id = 1 + (random() * 20)::int",
        ),
        hot(
            bridge,
            "with gone as (delete from people where id = 5001 returning id)"
            " insert into people (id, name) select 5001, 'came back' where not exists (select from gone)",
        ),
        hot(bridge, "update lines set n = 1000 - n, note = clock_timestamp()::text where code like '%1'"),
        hot(
            bridge,
            "insert into people (id, name, data) select 6000 + (random() * 500)::int, 'new', '\\xff'"
            " on conflict (id) do update set name = people.name || '+'",
        ),
        hot(bridge, "delete from people where id = 6000 + (random() * 500)::int"),
    ):
        reports = [compare(bridge.config) for _ in range(4)]
    for report in reports:
        assert report.equal, report.as_text()
        assert report.rows > 3000
    assert wait_until_equal(bridge.config, 30).equal


def test_drift_is_found_while_other_rows_change(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:people:2000", "name", "wrong")
    try:
        with hot(bridge, "update people set balance = balance + 1 where id between 1 and 50"):
            report = compare(bridge.config)
    finally:
        bridge.redis.hset(f"{bridge.name}:people:2000", "name", "name 2000")
    assert [drift.key for table in report.tables for drift in table.drifts] == [f"{bridge.name}:people:2000"]
    assert report.undecided == 0


def test_a_transaction_that_stays_open_keeps_no_judgement_waiting(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:people:77777", "id", "77777")
    try:
        with bridge.database.connect(autocommit=False) as open_transaction:
            open_transaction.execute("insert into people (id, name) values (88888, 'not yet')")
            report = compare(bridge.config)
            open_transaction.rollback()
    finally:
        bridge.redis.delete(f"{bridge.name}:people:77777")
    assert [(table.ghost, table.undecided) for table in report.tables if table.table == "public.people"] == [(1, 0)]


def test_a_bridge_at_rest_that_differs_is_reported_after_the_timeout(bridge: Bridge) -> None:
    bridge.redis.hset(f"{bridge.name}:people:9", "extra", "1")
    try:
        report = wait_until_equal(bridge.config, 0)
    finally:
        bridge.redis.hdel(f"{bridge.name}:people:9", "extra")
    assert [(drift.kind, drift.key) for table in report.tables for drift in table.drifts] == [
        ("different", f"{bridge.name}:people:9")
    ]


def test_the_command_prints_and_says_by_its_status_what_it_found(bridge: Bridge) -> None:
    told: list[str] = []
    assert run_verify(bridge.config, table="public.lines", output="json", echo=told.append) == 0
    value = json.loads(told.pop())
    assert (value["equal"], [table["table"] for table in value["tables"]]) == (True, ["public.lines"])
    assert run_verify(bridge.config, connector=bridge.sink, echo=told.append) == 0
    assert "equal: 2 tables" in told.pop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "public.nobody"}, "public.nobody"),
        ({"connector": "nobody"}, "there is no Redis sink connector 'nobody'"),
    ],
)
def test_unknown_names_are_configuration_errors(bridge: Bridge, options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compare(bridge.config, **options)


def test_without_a_running_bridge_differences_are_not_claimed(bridge: Bridge) -> None:
    bridge.stop()
    try:
        bridge.database.execute("update people set name = 'unseen' where id = 3000")
        report = compare(bridge.config, patience=1)
        assert (report.differing, report.undecided, report.exit_status) == (0, 1, 3)
        assert "has confirmed" in report.tables[1].reasons[0]
    finally:
        bridge.start()
    assert wait_until_equal(bridge.config, 60).equal


class hot:
    """Execute a statement over and over in a session of its own while the block runs."""

    def __init__(self, bridge: Bridge, statement: str) -> None:
        self._bridge = bridge
        self._statement = statement.encode()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: psycopg.Error | None = None

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._bridge.database.connect() as connection:
                while not self._stopping.wait(0.004):
                    connection.execute(self._statement)
        except psycopg.Error as error:
            self._error = error
