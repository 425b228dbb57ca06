"""``cdc dlq``: letters listed, shown, replayed beside a running sink; nothing newer is overwritten (A16, H18, H21)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from sink_feed import Bench, Schemas, Sink, eventually
from test_sink_dead_letters import block, hashes, in_queue, passed, tolerant
from typer.testing import CliRunner

import cdc.config
import cdc.errors
from cdc import cli
from cdc.config import Config
from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis
from cdc.operate import dlq
from cdc.operate.dlq import queue, replaying
from cdc.record import HEADER_UNKNOWN

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


@pytest.fixture
def bench(apache_kafka: ApacheKafka, redis7: Redis, schemas: Schemas) -> Bench:
    schemas.away = False
    return Bench(apache_kafka, redis7, schemas)


def text_of(bench: Bench) -> str:
    """The configuration of a worker with the test's sink."""
    worker = {key: value for key, value in bench.worker().items() if key != "consumer.session.timeout.ms"}
    settings = bench.settings(**tolerant(bench))
    return json.dumps({"worker": worker, "connectors": {settings.pop("name"): settings}})


def config_of(bench: Bench) -> Config:
    return cdc.config.loads({"bridge.json": text_of(bench)})


def name_of(bench: Bench) -> str:
    return f"{bench.prefix}-sink"


def unblock(bench: Bench, *numbers: int) -> None:
    with bench.client() as client:
        client.delete(*(f"{bench.prefix}:users:{number}" for number in numbers))


def outcomes(report: dlq.Report) -> list[tuple[int, str]]:
    return [(each.offset, each.outcome) for each in report.outcomes]


@pytest.mark.parametrize("store", ["redis7", "valkey9", "redis7_cluster"])
def test_a16_fixed_and_replayed_is_correct_while_the_sink_goes_on(
    request: pytest.FixtureRequest, apache_kafka: ApacheKafka, schemas: Schemas, tmp_path: Path, store: str
) -> None:
    bench = Bench(apache_kafka, request.getfixturevalue(store), schemas)
    block(bench, 5, 7)
    table = bench.table()
    for n in range(10):
        table.put(id=n, name="x")
    table.put(id=7, name="newer")
    table.flush()
    file = tmp_path / "bridge.json"
    file.write_text(text_of(bench), encoding="utf-8")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.02):
            number += 1
            table.put(id=100 + number % 50, name=f"n{number}")

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(cli.app, ["dlq", *arguments, str(file), "--connector", name_of(bench)])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    with Sink(bench, **tolerant(bench)):
        eventually(lambda: len(in_queue(bench)) == 3)
        [group] = run("list", "--output", "json")["letters"]
        assert (group["topic"], group["partition"], group["count"]) == (table.topic, 0, 3)
        assert (group["stage"], group["error"]) == ("TASK_PUT", "cdc.mirror.assembly.Refused")
        shown = run("show", "--output", "json")
        assert (shown["offset"], shown["key"]) == (10, {"id": 7})
        assert shown["value"]["after"] == {"id": 7, "name": "newer", "score": None}
        unblock(bench, 5, 7)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            told = run("replay", "--output", "json")
        finally:
            stop.set()
            writer.join()
        assert [(each["offset"], each["outcome"]) for each in told["letters"]] == [
            (5, "applied"),
            (7, "superseded"),
            (10, "applied"),
        ]
        table.flush()
        eventually(lambda: hashes(bench) == table.expected())
        assert run("list", "--output", "json") == {"letters": []}
        assert run("list", "--all", "--output", "json")["letters"][0]["count"] == 3
        assert run("replay", "--output", "json")["letters"] == []
        table.put(id=5, name="after it")
        table.flush()
        eventually(lambda: hashes(bench) == table.expected())


def test_h18_a_row_that_has_a_newer_record_is_not_touched(bench: Bench) -> None:
    """The rest of a letter: a later record, parts of a row, a key that is still in the way, a truncate."""
    block(bench, *range(1, 6))
    table = bench.table()
    for n in range(1, 6):
        table.put(id=n, name="old", score=n)
    table.flush()
    part = {HEADER_UNKNOWN: b'["score"]'}
    with Sink(bench, **tolerant(bench)):
        eventually(lambda: len(in_queue(bench)) == 5)
        unblock(bench, 1, 2, 5)
        table.put(id=1, name="new")  # applied
        table.delete(id=2)
        table.put(id=3, name="part", headers=part)  # a letter as well
        table.put(id=5, name="first part", headers=part)  # applied
        table.flush()
        eventually(lambda: {"users:1", "users:5"} <= hashes(bench).keys() and len(in_queue(bench)) == 6)
        unblock(bench, 5)
        block(bench, 5)
        table.put(id=5, name="second part", headers=part)  # a letter again
        table.flush()
        eventually(lambda: len(in_queue(bench)) == 7)
        unblock(bench, 3, 5)
        before = hashes(bench)
        report = dlq.replay(config_of(bench), name_of(bench))
        found = {each.offset: each for each in report.outcomes}
        assert {offset: each.outcome for offset, each in found.items()} == {
            0: "open",
            1: "open",
            2: "superseded",
            3: "open",
            4: "open",
            8: "applied",
            10: "open",
        }
        assert "a later record of its key at offset 5" in found[0].reason
        assert "a later record of its key at offset 7" in found[1].reason
        assert "WRONGTYPE" in found[3].reason
        assert "only a part of its row" in found[4].reason
        assert hashes(bench) == {**before, "users:3": {"id": "3", "name": "part", "score": "3"}}
        table.truncate()
        table.flush()
        eventually(lambda: hashes(bench) == {})
        unblock(bench, 4)
        report = dlq.replay(config_of(bench), name_of(bench))
        assert {each.outcome for each in report.outcomes} == {"void"}
        assert hashes(bench) == {}


def test_what_could_not_be_read_is_applied_once_it_can(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And interrupted before its receipt, it is applied once more."""
    table = bench.table()
    number = int.from_bytes(table._value[0][1:], "big")
    text = bench.schemas.texts.pop(number)
    table.put(id=1, name="x")
    table.put(id=2, name="y")
    table.flush()
    with Sink(bench, **tolerant(bench)):
        passed(bench, table, 2)
    config = config_of(bench)
    report = dlq.replay(config, name_of(bench))
    assert outcomes(report) == [(0, "open"), (1, "open")]
    assert "still at fault at VALUE_CONVERTER" in report.outcomes[0].reason
    assert not report.done
    bench.schemas.texts[number] = text

    def broken(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(replaying, "answered", broken)
        with pytest.raises(KeyboardInterrupt):
            dlq.replay(config, name_of(bench))
    assert hashes(bench) == table.expected()
    one = queue.read_queue(*queue.connector_of(config, name_of(bench)))[0].id
    report = dlq.replay(config, name_of(bench), [one])
    assert outcomes(report) == [(0, "applied")]
    assert outcomes(dlq.replay(config, name_of(bench))) == [(1, "applied")]
    assert hashes(bench) == table.expected()
    with Sink(bench, **tolerant(bench)):
        table.put(id=1, name="z")
        table.flush()
        eventually(lambda: hashes(bench) == table.expected())


def test_a_batch_that_may_be_written_again_holds_a_replay_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would bring back what is older than the letter."""
    table = bench.table()
    table.put(id=1, name="older")
    table.put(id=1, name="at fault", headers={HEADER_UNKNOWN: b"?"})
    table.flush()
    with Sink(bench, **tolerant(bench)):
        passed(bench, table, 2)
    held: Any = bench.offset(table.topic)
    with bench.client() as client:
        unseen = {**held, "prev": {"next": 0, "pos": {}}}
        client.set(f"__cdc:offset:{{{name_of(bench)}}}:{table.topic}:0", json.dumps(unseen))
    monkeypatch.setattr(replaying, "PATIENCE_S", 0.5)
    monkeypatch.setattr("cdc.mirror.assembly.patch", lambda op, _header: op)  # what was at fault is mended
    report = dlq.replay(config_of(bench), name_of(bench))
    assert outcomes(report) == [(1, "open")]
    assert "Run the sink" in report.outcomes[0].reason
    assert hashes(bench)["users:1"]["name"] == "older"


def test_a_letter_that_is_not_there_is_said_so(bench: Bench) -> None:
    table = bench.table()
    table.put(id=1)
    config = config_of(bench)
    assert dlq.list_letters(config, name_of(bench)) == []
    with pytest.raises(cdc.errors.ConfigError, match="no open letter 0-9"):
        dlq.replay(config, name_of(bench), ["0-9"])
    with pytest.raises(cdc.errors.ConfigError, match="no connector nobody"):
        dlq.list_letters(config, "nobody")


@pytest.mark.parametrize("how", ["deletes forgotten", "records trimmed"])
def test_a_letter_behind_which_the_topic_may_have_lost_a_delete_is_not_applied(bench: Bench, how: str) -> None:
    """Its row may be gone since, with nothing left in the topic that says so: it is for the source to tell."""
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    block(bench, 1)
    table = bench.table()
    table.put(id=1, name="x")
    table.flush()
    with Sink(bench, **tolerant(bench)):
        eventually(lambda: len(in_queue(bench)) == 1)
        unblock(bench, 1)
        table.delete(id=1)
        table.put(id=2, name="y")
        table.flush()
        eventually(lambda: hashes(bench) == {"users:2": {"id": "2", "name": "y"}})
        if how == "records trimmed":
            part = TopicPartition(table.topic, 0, 2)
            alter(admin, table.topic, "cleanup.policy", "compact,delete")
            admin.delete_records([part])[part].result(30)
        else:  # as it is for any topic once the letter is old enough
            alter(admin, table.topic, "delete.retention.ms", "1")
        before = hashes(bench)
        report = dlq.replay(config_of(bench), name_of(bench))
        assert outcomes(report) == [(0, "open")]
        assert (
            "has lost what came behind it" if how == "records trimmed" else "older than the topic keeps deletes"
        ) in (report.outcomes[0].reason)
        assert hashes(bench) == before


def alter(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    [altered] = admin.incremental_alter_configs([resource]).values()
    altered.result(30)
