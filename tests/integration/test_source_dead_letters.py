"""Records that a source cannot write go to the dead letter queue, in its transactions; tables go on (H7, T29, A20)."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from cdc.operate import dlq
from cdc.record import HEADER_POSITION
from cdc.runtime.worker import Worker
from tests.integration.letter_box import Found, letters
from tests.integration.test_bridge import Bridge, apache, until

__all__ = ["apache"]

pytestmark = pytest.mark.integration

FAST = "schema.refresh.ms: 200"


def queue_of(bridge: Bridge) -> str:
    return f"dlq-{bridge.name}"


def tolerant(bridge: Bridge, *more: str) -> str:
    """Settings of a source that goes on."""
    return "\n    ".join(
        (
            FAST,
            "errors.tolerance: all",
            f"errors.deadletterqueue.topic.name: {queue_of(bridge)}",
            "errors.deadletterqueue.topic.replication.factor: 1",
            "errors.deadletterqueue.context.headers.enable: true",
            *more,
        )
    )


def in_queue(bridge: Bridge) -> list[Found]:
    return letters(bridge.kafka.bootstrap_servers, queue_of(bridge))


def figures(worker: Worker, connector: str) -> dict[str, Any]:
    task = worker.status()["connectors"][connector]["tasks"][0]
    found: dict[str, Any] = task.get("metrics", {}).get("metrics", {})
    return found


def mirrored(bridge: Bridge, key: str) -> None:
    with bridge.client() as client:
        until(lambda: client.exists(f"{bridge.name}:{key}"), f"{key} in Redis")


def noise(connection: Any, size: int, identity: int) -> str:
    """Text of a row that does not compress."""
    text = os.urandom(size // 2).hex()
    connection.execute("insert into t values (%s, %s)", [identity, text])
    return text


def test_t29_an_oversize_record_goes_whole_to_the_queue_and_its_table_goes_on(apache: Bridge) -> None:
    apache.source = tolerant(apache)
    apache.database.execute("create table t (id int primary key, v text); insert into t values (1, 'x')")
    with apache.running() as worker, apache.database.connect() as connection:
        apache.equal()
        with connection.transaction():
            connection.execute("insert into t values (2, 'before')")
            text = noise(connection, 1_200_000, 3)
            connection.execute("insert into t values (4, 'behind')")
        mirrored(apache, "t:4")
        until(lambda: figures(worker, apache.name).get("dead_letters") == 1, "a letter in the figures")
        [found] = in_queue(apache)
        assert found.value is not None
        assert text.encode() in found.value
        assert found.key is not None
        assert (found.letter.topic, found.letter.stage, found.letter.size) == (
            f"{apache.name}.public.t",
            "KAFKA_PRODUCE",
            -1,
        )
        assert dict(found.own)[HEADER_POSITION] == found.letter.position.encode()
        assert found.context["exception.class.name"] == "cdc.kafka.producer.RecordTooLarge"
        apache.database.execute("update t set v = 'small enough' where id = 3")
        assert apache.equal().rows == 4
        # The row is told again by the source, where the letter has no place in its topic.
        report = dlq.replay(apache.config(), apache.name)
        assert [(each.outcome, each.reason) for each in report.outcomes] == [
            ("read again", "a source's record was never in its topic")
        ]
        assert dlq.list_letters(apache.config(), apache.name) == []


def test_a_record_that_only_the_broker_finds_too_large_is_put_aside_without_aborting_for_ever(apache: Bridge) -> None:
    """A topic of small batches, where many small records in one are too large as well: those are no letters."""
    apache.source = tolerant(apache, "topic.creation.default.max.message.bytes: 50000")
    apache.database.execute("create table t (id int primary key, v text)")
    with apache.running() as worker, apache.database.connect() as connection:
        until(lambda: figures(worker, apache.name), "a running source")
        with connection.transaction():
            connection.execute(
                "insert into t select i, (select string_agg(md5((i * 10 + j)::text), '')"
                " from generate_series(1, 10) j) from generate_series(10, 1000) i"
            )
            text = noise(connection, 90_000, 1)
            connection.execute("insert into t values (2, 'behind')")
        mirrored(apache, "t:2")
        until(lambda: figures(worker, apache.name).get("dead_letters") == 1, "a letter in the figures")
        [found] = in_queue(apache)
        assert text.encode() in (found.value or b"")
        assert found.letter.stage == "KAFKA_PRODUCE"
        apache.database.execute("update t set v = 'small enough' where id = 1")
        assert apache.equal().rows == 993


def test_without_tolerance_an_oversize_record_stops_the_source_and_says_what_to_do(apache: Bridge) -> None:
    apache.source = FAST
    apache.database.execute("create table t (id int primary key, v text); insert into t values (1, 'x')")
    with apache.running() as worker, apache.database.connect() as connection:
        apache.equal()
        noise(connection, 1_200_000, 3)

        def trace() -> str:
            return str(worker.status()["connectors"][apache.name]["tasks"][0])

        until(lambda: "producer.message.max.bytes" in trace(), "an error that names the setting")
        assert f"{apache.name}.public.t" in trace()


def test_a_schema_that_the_registry_refuses_sends_the_changes_to_the_queue_until_it_is_mended(apache: Bridge) -> None:
    """The third policy. Other tables go on; a restart in between; what was put aside is read again at the end."""
    apache.source = tolerant(apache, "schema.incompatible.handling.mode: dlq")
    apache.database.execute("create table t (id int primary key, v int); create table u (id int primary key)")
    apache.database.execute("insert into t values (1, 1), (2, 2), (3, 3); insert into u values (1)")
    with apache.running() as worker:
        apache.equal()
        apache.database.execute("alter table t alter v type text; update t set v = 'x' where id = 1")
        until(lambda: figures(worker, apache.name).get("dead_letters") == 1, "a letter")
        tables = worker.status()["connectors"][apache.name]["tasks"][0]["metrics"]["tables"]
        assert "incompatible" in tables["public.t"]
        apache.database.execute("insert into u values (2)")
        mirrored(apache, "u:2")
    with apache.running() as worker:
        apache.database.execute("delete from t where id = 2; update t set v = 'y' where id = 1")
        until(lambda: figures(worker, apache.name).get("dead_letters") == 2, "the letters of the next run")
        found = in_queue(apache)
        assert [each.letter.form for each in found] == ["json"] * 3
        told = [json.loads(each.value or b"")["payload"] for each in found]
        assert [(each["op"], each["after"] and each["after"]["v"]) for each in told] == [
            ("u", "x"),
            ("d", None),
            ("u", "y"),
        ]
        assert [json.loads(each.key or b"")["payload"] for each in found] == [{"id": 1}, {"id": 2}, {"id": 1}]
        assert {each.letter.error for each in found} == {"cdc.errors.SchemaRefused"}
        with apache.client() as client:
            assert client.hgetall(f"{apache.name}:t:1") == {"id": "1", "v": "1"}
        apache.database.execute("alter table t alter v type int using length(v)")
        assert apache.equal().rows == 4
        apache.database.execute("update t set v = 100")
        apache.equal()


def test_a_record_that_a_transform_cannot_change_is_a_letter(apache: Bridge) -> None:
    apache.source = tolerant(
        apache,
        "transforms: outbox",
        "transforms.outbox.type: io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.table.op.invalid.behavior: fatal",
        "transforms.outbox.predicate: events",
        "predicates: events",
        "predicates.events.type: TopicNameMatches",
        r"predicates.events.pattern: .*\.outbox",
    )
    apache.database.execute(
        "create table outbox (id uuid primary key default gen_random_uuid(), aggregatetype text, aggregateid text,"
        " type text, payload text); create table t (id int primary key)"
    )
    with apache.running() as worker:
        until(lambda: figures(worker, apache.name), "a running source")
        apache.database.execute("insert into outbox values (default, 'order', '1', 'made', 'x')")
        apache.database.execute("update outbox set payload = 'not allowed'; insert into t values (1)")
        mirrored(apache, "t:1")
        until(lambda: figures(worker, apache.name).get("dead_letters") == 1, "a letter")
        [found] = in_queue(apache)
        assert (found.letter.stage, found.letter.form) == ("TRANSFORMATION", "json")
        assert found.context["class.name"] == "cdc.transforms.outbox.EventRouter"
        assert json.loads(found.value or b"")["payload"]["after"]["payload"] == "not allowed"
