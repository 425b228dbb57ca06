"""Random histories with random kills: nothing is lost, nothing doubled, and no reader ever sees an older value.

``FAULTS_HISTORIES`` is how many are drawn, ``FAULTS_SEED`` replays one. What fails says its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import pytest
import redis
from psycopg import sql

from bench.bridge import PATIENCE_SECONDS, Bridge, redis_sink
from bench.bridge import source as postgres_source
from bench.servers import Servers
from cdc.operate.verify import wait_until_equal
from tests.faults.extent import PARTITIONS
from tests.histories import History, play
from tests.topic_proof import Topics, prove_topics

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

HISTORIES: Final = int(os.environ.get("FAULTS_HISTORIES", "5"))
FAULTS: Final = 3
"""Of each history, at random places of it."""
SINK: Final = "cache"


class Watcher:
    """A reader that looks at every key again and again: a row's ``version`` never falls."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._match = f"{prefix}:*"
        self._seen: dict[bytes, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")
        self.looks = 0
        self.fallen: list[str] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                self._look()
            self._over.wait(0.005)

    def _look(self) -> None:
        keys = list(self._client.scan_iter(match=self._match, count=1000))
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hget(key, "version")
            versions = pipeline.execute()
        for key, version in zip(keys, versions, strict=True):
            if version is None:
                continue
            if int(version) < self._seen.get(key, 0):
                self.fallen.append(f"{key!r}: {int(version)} after {self._seen[key]}")
            self._seen[key] = int(version)
        self.looks += 1


def faults(servers: Servers, bridge: Bridge, name: str) -> dict[str, Callable[[], None]]:
    def kill_worker() -> None:
        bridge.kill()
        bridge.start()

    def kill_task(connector: str) -> Callable[[], None]:
        def kill() -> None:
            bridge.wait_for(f"{connector} runs", lambda: bool(bridge.task(connector).get("pid")), PATIENCE_SECONDS)
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself meanwhile
                os.kill(bridge.task_pid(connector), signal.SIGKILL)

        return kill

    def kill_server(server: Any) -> Callable[[], None]:
        def kill() -> None:
            server.kill()
            server.start()

        return kill

    def terminate_walsenders() -> None:
        with servers.connect() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'"
            )

    def cut_redis() -> None:
        with servers.redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    return {
        "worker": kill_worker,
        "source task": kill_task(name),
        "sink task": kill_task(SINK),
        "Postgres": kill_server(servers.postgres),
        "Kafka": kill_server(servers.kafka),
        "Redis": kill_server(servers.redis),
        "walsender": terminate_walsenders,
        "connections to Redis": cut_redis,
    }


def seeds() -> Iterator[int]:
    if os.environ.get("FAULTS_SEED"):
        yield int(os.environ["FAULTS_SEED"])
    else:
        yield from (random.SystemRandom().randrange(10**9) for _ in range(HISTORIES))


def play_on(servers: Servers, statements: list[sql.Composed]) -> None:
    """One transaction, played again if the server went away before it said what became of it."""
    while True:
        try:
            with servers.connect() as connection:
                play(connection, [statements])
        except psycopg.OperationalError:
            continue  # starting up, or gone in the middle: what it holds is the truth in any case
        else:
            return


def run(seed: int, servers: Servers) -> list[str]:
    """Play one history; the names of its faults."""
    rng = random.Random(f"faults of {seed}")
    history = History.draw(seed, phases=2, transactions=40, versioned=True)
    name = f"h{seed}"
    with servers.connect() as connection:
        connection.execute("drop schema public cascade; create schema public")
        for statement in history.create():
            connection.execute(statement)
        play(connection, history.phases[0])
    properties = {
        "topic.prefix": name,
        "table.include.list": r"public\..*",
        "snapshot.fetch.size": 7,
        "slot.name": name,
    }
    connectors = {
        name: {**postgres_source(servers.postgres, "bench", []), **properties},
        SINK: {
            **redis_sink(servers.redis, []),
            "topics.regex": rf"{name}\.public\..*",
            "redis.key": f"{name}:{{table}}:{{pk}}",
        },
    }
    del connectors[SINK]["topics"]
    told = []
    with (
        Bridge(
            servers.kafka,
            connectors,
            password=servers.postgres.password,
            group=name,
            worker={"topic.creation.default.partitions": PARTITIONS},
        ) as bridge,
        servers.redis.client() as client,
        Watcher(client, name) as watcher,
    ):
        injected = faults(servers, bridge, name)
        places = {rng.randrange(len(history.phases[1])): rng.choice(list(injected)) for _ in range(FAULTS)}
        for number, statements in enumerate(history.phases[1]):
            if number in places:
                told.append(places[number])
                injected[places[number]]()
            threading.Event().wait(rng.uniform(0, 0.1))  # so that faults fall among different stages of the records
            play_on(servers, statements)
        report = wait_until_equal(bridge.config, 120)
        assert report.equal, f"after {told}: {report.as_text()}; the worker's log:\n{bridge.output[-20_000:]}"
        bridge.wait_for("the worker tells where it answers", lambda: "worker" in bridge.status())
        with Topics(servers.kafka.bootstrap_servers, bridge.registry) as topics:
            prove_topics(bridge.config, topics, seed)
        looks = watcher.looks
    assert not watcher.fallen, watcher.fallen[:5]
    assert looks
    with servers.connect() as connection:
        connection.execute("select pg_drop_replication_slot(%s)", [name])
        connection.execute(sql.SQL("drop publication {}").format(sql.Identifier(f"cdc_{name}")))
    return told


def test_nothing_is_lost_doubled_or_older_whatever_dies(servers: Servers) -> None:
    counts: dict[str, int] = {}
    for seed in seeds():
        try:
            for fault in run(seed, servers):
                counts[fault] = counts.get(fault, 0) + 1
        except Exception as error:
            raise AssertionError(f"FAULTS_SEED={seed}, after {counts}") from error
    assert counts
