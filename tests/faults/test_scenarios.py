"""Faults that are not a moment's: state that is lost, a second worker, a registry that is away, clocks that jump.

Each ends with both ends equal, or stops by name within seconds and is equal after the remedy it tells.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from bench.servers import Servers
from cdc.operate.offsets import delete_offsets
from cdc.operate.slots import reset_slot
from tests.faults.ledger import LEDGER
from tests.faults.stage import PATIENCE_S, SINK, Stage, Ways
from tests.histories import History
from tests.integration.registry_server import running_registry
from tests.proxy import Proxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

JUMPS: Final = int(os.environ.get("FAULTS_JUMPS", "12"))
CLOCK: Final = """
import os, time
true, true_ns = time.time, time.time_ns
def ahead():
    with open(os.environ["CDC_TEST_CLOCK"], encoding="ascii") as file:
        return int(file.read())
time.time = lambda: true() + ahead()
time.time_ns = lambda: true_ns() + ahead() * 1_000_000_000
"""
"""A ``sitecustomize`` that moves Python's wall clock. Not libfaketime: it moves the one of Kafka's client library too,
whose timed waits then last for minutes."""


def drawn(seed: int) -> list[History]:
    return [History.draw(seed * 1000 + n, phases=3, transactions=15, versioned=True, tag=f"~{n}") for n in range(2)]


def play(stage: Stage, phase: int) -> None:
    for history in stage.histories:
        stage.play(history.phases[phase], lambda: 0.005).join()


def note(stage: Stage, fault: str, heal: float) -> None:
    """What came of it; nothing may have stepped back."""
    duplicated, regressed = stage.follower.fallen, stage.watcher.fallen
    LEDGER.note(fault, heal, duplicated=len(duplicated), regressed=len(regressed))
    assert not duplicated, duplicated[:5]
    assert not regressed, regressed[:5]


@contextlib.contextmanager
def streaming(servers: Servers, proxies: Ways, seed: int, **options: Any) -> Iterator[Stage]:
    """Two histories of which the first phase is before the start and the second was streamed."""
    with Stage(servers, proxies, f"s{seed}", drawn(seed), **options) as stage:
        play(stage, 1)
        stage.settle()
        yield stage


def told(stage: Stage, connector: str, *words: str) -> str:
    """Wait until a task has failed with these words, and a remedy; its error."""

    def failed() -> str:
        task = stage.bridge.task(connector)
        return str(task.get("trace") or task.get("failure") or task.get("error") or "")

    stage.bridge.wait_for(
        f"{connector} says {words}", lambda: all(word in failed() for word in (*words, "Remedy: ")), PATIENCE_S
    )
    return failed()


def test_source_offsets_that_are_deleted_begin_a_new_epoch(servers: Servers, proxies: Ways) -> None:
    with streaming(servers, proxies, 101) as stage:
        stage.bridge.stop()
        play(stage, 2)
        assert delete_offsets(stage.bridge.config, stage.name)
        stage.bridge.start()
        note(stage, "source offsets deleted", stage.settle())
        stage.prove()


def test_a_dropped_slot_stops_by_name_and_a_reset_heals(servers: Servers, proxies: Ways) -> None:
    with streaming(servers, proxies, 102) as stage:
        stage.bridge.stop()
        with servers.connect() as connection:
            connection.execute("select pg_drop_replication_slot(%s)", [stage.name])
        play(stage, 2)  # rows that go meanwhile are told by nobody
        stage.bridge.start()
        told(stage, stage.name, stage.name, "cdc slot reset")
        reset_slot(stage.bridge.config, stage.name)
        note(stage, "slot dropped", stage.settle())
        stage.prove()


def test_an_embedded_registry_that_is_wiped_stops_by_name_and_goes_on_when_restored(
    servers: Servers, proxies: Ways
) -> None:
    with streaming(servers, proxies, 103) as stage:
        stage.bridge.stop()
        kept = records(servers, "_schemas")
        delete_topic(servers, "_schemas")
        play(stage, 2)
        begun = time.monotonic()
        stage.bridge.start()
        told(stage, stage.name, "_schemas", "emptied")
        LEDGER.note("registry wiped: told", time.monotonic() - begun)
        stage.bridge.stop()
        delete_topic(servers, "_schemas")
        servers.create_topic("_schemas", 1)
        producer = Producer({"bootstrap.servers": servers.kafka.bootstrap_servers})
        for key, value in kept:
            producer.produce("_schemas", value, key)
        assert producer.flush(30) == 0
        stage.bridge.start()
        note(stage, "registry restored", stage.settle())
        stage.prove()


def test_a_topic_that_is_deleted_stops_by_name(servers: Servers, proxies: Ways) -> None:
    with streaming(servers, proxies, 105) as stage:
        source: Any = next(spec.connector.config for spec in stage.bridge.config.connectors if spec.kind == "source")
        topic = source.topic("public", stage.histories[0].tables[0].name)
        begun = time.monotonic()
        delete_topic(servers, topic)
        playing = stage.play(stage.histories[0].phases[2], lambda: 0.1)
        stage.bridge.wait_for(
            "a task says that the topic is gone, and what to do",
            lambda: any(
                topic in error and "Remedy: " in error
                for error in (
                    str(stage.bridge.task(name, number).get("error", ""))
                    for name, number in ((stage.name, 0), (SINK, 0), (SINK, 1))
                )
            ),
            PATIENCE_S,
        )
        LEDGER.note("topic deleted: told", time.monotonic() - begun)
        playing.join()


def records(servers: Servers, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of a topic of one partition."""
    settings = {"bootstrap.servers": servers.kafka.bootstrap_servers, "group.id": "keeper"}
    consumer = Consumer({**settings, "enable.partition.eof": True, "enable.auto.commit": False})
    found: list[tuple[bytes | None, bytes | None]] = []
    with contextlib.closing(consumer):
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while (message := consumer.poll(30)) is not None and message.error() is None:
            found.append((message.key(), message.value()))
    assert found
    return found


def delete_topic(servers: Servers, topic: str) -> None:
    """Delete it, and wait until it is gone."""
    admin = AdminClient({"bootstrap.servers": servers.kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(30)
    while topic in admin.list_topics(timeout=10).topics:
        time.sleep(0.05)


def test_two_workers_on_one_slot_double_and_lose_nothing(servers: Servers, proxies: Ways) -> None:
    with streaming(servers, proxies, 104) as stage:
        with stage.bridge.twin() as second:
            play(stage, 2)
            # Whoever begins its transactions later fences the other, who says so.
            stage.bridge.wait_for(
                "one of them is fenced",
                lambda: any("took over" in bridge.output for bridge in (stage.bridge, second)),
                PATIENCE_S,
            )
            second.kill()
        note(stage, "two workers on one slot", stage.settle())
        stage.prove()


@contextlib.contextmanager
def external(servers: Servers) -> Iterator[Proxy]:
    """A schema registry of its own, behind a proxy."""
    with (
        running_registry(servers.kafka.bootstrap_servers) as registry,
        Proxy(int(registry.url.rpartition(":")[2])) as proxy,
    ):
        yield proxy


def refused(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()


def slowed(proxy: Proxy) -> None:
    proxy.bytes_per_second = 2000


@pytest.mark.parametrize("fault", [refused, Proxy.hold, slowed, Proxy.half_open], ids=lambda fault: fault.__name__)
def test_an_external_registry_that_is_away_when_schemas_are_new(
    servers: Servers, proxies: Ways, fault: Callable[[Proxy], None]
) -> None:
    seed = 110 + [refused, Proxy.hold, slowed, Proxy.half_open].index(fault)
    with external(servers) as registry:
        worker = {"schema.registry.url": f"http://{registry.endpoint}", "schema.registry.http.read.timeout.ms": 3000}
        with streaming(servers, proxies, seed, worker=worker) as stage:
            fault(registry)
            stage.execute(
                "create table late (id int primary key, version bigint not null)",
                "insert into late select i, i from generate_series(1, 50) i",
            )
            play(stage, 2)
            time.sleep(random.Random(seed).uniform(2, 4))
            registry.lift()
            note(stage, f"external registry: {fault.__name__}", stage.settle())
            stage.prove(f"http://{registry.endpoint}")


def test_clocks_that_jump_change_nothing(servers: Servers, proxies: Ways, tmp_path: Path) -> None:
    """The wall clock of worker and tasks goes an hour ahead, days back, and so on; the monotonic one goes on."""
    clock = tmp_path / "clock"
    turn(clock, 0)
    environment = {"PYTHONPATH": str(tmp_path), "CDC_TEST_CLOCK": str(clock)}
    (tmp_path / "sitecustomize.py").write_text(CLOCK, encoding="ascii")
    rng = random.Random(120)
    histories = [History.draw(120, phases=JUMPS + 1, transactions=8, versioned=True)]
    with Stage(servers, proxies, "s120", histories, environment=environment) as stage:
        stage.settle()
        for phase in range(1, JUMPS + 1):
            playing = stage.play(histories[0].phases[phase], lambda: 0.2)
            turn(clock, rng.choice([3000, -3000, -86_400, 30, -30, 0, -864_000, 864_000]))
            if phase % 4 == 0:  # a task that begins under another clock: its epoch must not depend on it
                stage.bridge.kill()
                stage.bridge.start()
            playing.join()
            note(stage, "clock jump", stage.settle())
        stage.prove()


def test_timestamps_that_the_broker_refuses_are_waited_out_and_told(servers: Servers, proxies: Ways) -> None:
    """As when the clocks of client and broker are further apart than the broker takes: here its limit is moved."""
    with streaming(servers, proxies, 121) as stage:
        source: Any = next(spec.connector.config for spec in stage.bridge.config.connectors if spec.kind == "source")
        marks = source.topic("public", "marks")
        limit_timestamps(servers, marks, "0")
        stage.touch()
        stage.bridge.wait_for("the source tells why", lambda: "TIMESTAMP" in stage.log(), PATIENCE_S)
        limit_timestamps(servers, marks, None)
        note(stage, "timestamps refused", stage.settle())
        stage.prove()


def limit_timestamps(servers: Servers, topic: str, milliseconds: str | None) -> None:
    """How much older than the broker's clock a timestamp may be; ``None`` for the server's own limit."""
    operation = AlterConfigOpType.DELETE if milliseconds is None else AlterConfigOpType.SET
    entry = ConfigEntry("message.timestamp.before.max.ms", milliseconds or "", incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": servers.kafka.bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def turn(clock: Path, offset: int) -> None:
    """Move the clock to so many seconds from the true time."""
    beside = clock.with_suffix(".new")
    beside.write_text(f"{offset}\n", encoding="ascii")
    beside.replace(clock)
