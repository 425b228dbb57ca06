"""A bridge with a proxy on each of its ways, histories that are played on it, and the look whether all is equal.

Every way of the bridge passes a proxy: source to Postgres (connections of the catalog too), source and embedded
registry to Kafka, sink to Kafka, sink to Redis. The tests themselves go past the proxies, except for `cdc verify`,
which reads the bridge's configuration and looks when the proxies pass everything.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from confluent_kafka.admin import AdminClient
from psycopg import sql

from bench.bridge import Bridge, redis_sink, source
from bench.servers import DATABASE, Servers
from cdc.local._ports import free_port
from cdc.local.kafka import ApacheKafka
from tests.faults.equality import Equality
from tests.faults.evidence import keep
from tests.faults.extent import PARTITIONS
from tests.faults.watching import Follower, Watcher
from tests.histories import History, play
from tests.proxy import Proxy, frames_of_postgres
from tests.topic_proof import Topics, prove_topics

__all__ = ["NAME", "SINK", "Played", "Stage", "Ways", "proxied_kafka", "ways"]

NAME: Final = "shop"
SINK: Final = "cache"
KEPT: Final = Path(tempfile.gettempdir()) / "cdc-faults"
"""Where evidence is kept."""
PATIENCE_S: Final = 180.0
SINK_TASKS: Final = 2
WAYS: Final = ("Postgres", "Kafka (source)", "Kafka (sink)", "Redis")

Statements = list[sql.Composed]


@dataclass(frozen=True)
class Ways:
    """The proxies, by the way on which each stands."""

    postgres: Proxy
    source_kafka: Proxy
    sink_kafka: Proxy
    redis: Proxy

    def named(self) -> dict[str, Proxy]:
        return dict(zip(WAYS, (self.postgres, self.source_kafka, self.sink_kafka, self.redis), strict=True))

    def lift(self) -> None:
        for proxy in self.named().values():
            proxy.lift()

    def close(self) -> None:
        for proxy in self.named().values():
            proxy.close()


def proxied_kafka(**options: Any) -> tuple[ApacheKafka, Proxy, Proxy]:
    """A broker with listeners SOURCE and SINK, whose advertised addresses are these proxies."""
    port, by_source, by_sink, controller = (free_port() for _ in range(4))
    first, second = Proxy(by_source), Proxy(by_sink)
    listeners = {"PLAINTEXT": port, "SOURCE": by_source, "SINK": by_sink, "CONTROLLER": controller}
    advertised = {"PLAINTEXT": port, "SOURCE": first.port, "SINK": second.port}
    settings = {
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": ",".join(f"{name}://127.0.0.1:{number}" for name, number in listeners.items()),
        "advertised.listeners": ",".join(f"{name}://127.0.0.1:{number}" for name, number in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
    }
    return ApacheKafka(port=port, settings=settings, **options), first, second


def ways(servers: Servers, source_kafka: Proxy, sink_kafka: Proxy) -> Ways:
    """All proxies, for these servers."""
    return Ways(
        Proxy(servers.postgres.port, down=frames_of_postgres), source_kafka, sink_kafka, Proxy(servers.redis.port)
    )


@dataclass
class Played:
    """Transactions that a thread plays one after another, on a connection past the proxies."""

    servers: Servers
    transactions: Sequence[Statements]
    pause: Callable[[], float]
    done: int = 0
    error: BaseException | None = None
    _moved: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="player")

    def start(self) -> Played:
        self._thread.start()
        return self

    def wait(self, count: int) -> None:
        """Until so many are played, or all."""
        with self._moved:
            self._moved.wait_for(lambda: self.done >= min(count, len(self.transactions)) or self.error, PATIENCE_S)

    def join(self) -> None:
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        connection: psycopg.Connection[tuple[Any, ...]] | None = None
        try:
            for statements in self.transactions:
                time.sleep(self.pause())  # so that faults fall among different stages of the records
                connection = self._play(connection, statements)
                with self._moved:
                    self.done += 1
                    self._moved.notify_all()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            with self._moved:
                self.error = error
                self._moved.notify_all()
        finally:
            if connection is not None:
                connection.close()

    def _play(
        self, connection: psycopg.Connection[tuple[Any, ...]] | None, statements: Statements
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """One transaction, played again if the server went away before it said what became of it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if connection is None or connection.closed:
                    connection = self.servers.connect()
                play(connection, [statements])
            except psycopg.OperationalError:  # starting up, or gone: what it holds is the truth in any case
                if connection is not None:
                    connection.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return connection


class Stage:
    """The bridge of one round: tables made anew, rows before it starts, then histories under faults."""

    def __init__(
        self,
        servers: Servers,
        proxies: Ways,
        name: str,
        histories: Sequence[History],
        *,
        tables: Sequence[str] = (),
        worker: Mapping[str, Any] | None = None,
        source_properties: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        sink_tasks: int = SINK_TASKS,
        proxied: Collection[str] = WAYS,
        watched: bool = True,
    ) -> None:
        """``proxied`` are the ways that pass their proxy, ``watched`` whether readers look on: both cost throughput."""
        self.servers, self.ways, self.name = servers, proxies, name
        self._watched = watched
        self.histories = histories
        self._statements = tables
        self._marks = 0
        self._equality: Equality | None = None
        self._look_seconds = 0.0
        self.lost = 0
        """Keys that differed at the last look."""
        self._stack = ExitStack()
        self._make_tables()
        redis_port = proxies.redis.port if "Redis" in proxied else servers.redis.port
        by_source, by_sink = (
            proxy.endpoint if way in proxied else servers.kafka.bootstrap_servers
            for way, proxy in (("Kafka (source)", proxies.source_kafka), ("Kafka (sink)", proxies.sink_kafka))
        )
        port = {
            "database.port": proxies.postgres.port if "Postgres" in proxied else servers.postgres.port,
            "database.sslmode": "disable",
        }
        properties = {
            "topic.prefix": name,
            "table.include.list": r"public\..*",
            "snapshot.fetch.size": 20,
            "slot.name": name,
            **(source_properties or {}),
        }
        sink = redis_sink(servers.redis, [])
        del sink["topics"]
        connectors = {
            name: {**source(servers.postgres, DATABASE, []), **port, **properties},
            SINK: {
                **sink,
                "tasks.max": sink_tasks,
                "topics.regex": rf"{name}\.public\..*",
                "redis.key": f"{name}:{{table}}:{{pk}}",
                "redis.uri": servers.redis.url.replace(f":{servers.redis.port}", f":{redis_port}"),
                "redis.timeout.ms": 3000,
                "topics.refresh.ms": 500,
                "consumer.override.bootstrap.servers": by_sink,
                "admin.override.bootstrap.servers": by_sink,
            },
        }
        settings = {
            "bootstrap.servers": by_source,
            "topic.creation.default.partitions": PARTITIONS,
            "offset.storage.partitions": 3,
            "task.restart.backoff.initial.ms": 100,
            "task.restart.backoff.max.ms": 1000,
            "task.restart.backoff.fatal.ms": 500,
            "task.restart.reset.ms": 1000,
            "consumer.session.timeout.ms": 6000,
            **{f"{role}.socket.timeout.ms": 5000 for role in ("producer", "consumer", "admin")},
            **{f"{role}.reconnect.backoff.max.ms": 500 for role in ("producer", "consumer", "admin")},
            **(worker or {}),
        }
        self.bridge = Bridge(
            servers.kafka,
            connectors,
            password=servers.postgres.password,
            group=name,
            worker=settings,
            environment=environment,
        )
        self._own = (f"{name}.", f"{name}-")
        """How the names of its topics begin."""
        self._client = servers.redis.client()
        self.watcher = Watcher(servers.redis.client(), name)
        self.follower = Follower(servers.kafka.bootstrap_servers, rf"{name}\.public\..*")

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            stack.callback(self._drop)
            stack.callback(self._client.close)
            stack.callback(self.ways.lift)
            if self._watched:
                stack.enter_context(self.watcher)
                stack.enter_context(self.follower)
            stack.enter_context(self.bridge)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    # -- histories ----------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        with self.servers.connect() as connection:
            connection.execute("drop schema public cascade; create schema public")
            connection.execute("create table marks (id int primary key, number bigint not null)")
            connection.execute("insert into marks values (1, 0)")
            for made in self._statements:
                connection.execute(made.encode())
            for number, history in enumerate(self.histories):
                for statement in history.create(types=number == 0):
                    connection.execute(statement)
                play(connection, history.phases[0])

    def _drop(self) -> None:
        """Nothing of the round is left on the servers."""
        with self.servers.connect() as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where slot_name = %s and active_pid is not null",
                [self.name],
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", [self.name]
            )
            connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(f"cdc_{self.name}")))
        for key in self._client.scan_iter(match=f"{self.name}:*", count=1000):
            self._client.delete(key)
        # A broker that was killed looks through all partitions there ever were before it answers.
        admin = AdminClient({"bootstrap.servers": self.servers.kafka.bootstrap_servers})
        topics = [topic for topic in admin.list_topics(timeout=PATIENCE_S).topics if topic.startswith(self._own)]
        if topics:
            for deleted in admin.delete_topics(topics).values():
                deleted.result(PATIENCE_S)

    def play(self, transactions: Sequence[Statements], pause: Callable[[], float]) -> Played:
        """Begin to play transactions."""
        return Played(self.servers, transactions, pause).start()

    def execute(self, *statements: str) -> None:
        """Change tables, past the proxies; what is to be equal is described anew after it."""
        with self.servers.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())
        self._equality = None

    def touch(self) -> int:
        """One more change, of the table of marks; its number."""
        self._marks += 1
        with self.servers.connect() as connection:
            connection.execute("update marks set number = %s where id = 1", [self._marks])
        return self._marks

    # -- the look -----------------------------------------------------------------------------------

    def settle(self, patience: float = PATIENCE_S) -> float:
        """Wait until Redis equals Postgres; the seconds it took. `AssertionError` with the differences if it does not.

        A last change is the mark; most of the time is over when it is in Redis, and then all is compared.
        """
        begun = time.monotonic()
        mark = self.touch()
        while self._mark() != mark and time.monotonic() - begun < patience:
            time.sleep(0.01)
        equality = self._equality = self._equality or Equality(self.servers, self.bridge.config, self.name)
        while different := self._look(equality):
            if time.monotonic() - begun > patience:
                told = "\n".join([*different[:10], "the worker's log:", self.log(200_000)])
                kept = keep(KEPT, self.name, self.servers.kafka.bootstrap_servers, self._client, told)
                raise AssertionError("\n".join([*different[:10], f"all there is to know of it: {kept}", self.log()]))
            time.sleep(max(0.02, self._look_seconds))  # a look at many rows must not take the time that they need
        return time.monotonic() - begun

    def _look(self, equality: Equality) -> list[str]:
        begun = time.monotonic()
        try:
            different = equality.differences()
        except redis.RedisError as error:
            different = [f"Redis: {error}"]
        self.lost = len(different)
        self._look_seconds = time.monotonic() - begun
        return different

    def _mark(self) -> int:
        with contextlib.suppress(redis.RedisError):
            return int(self._client.hget(f"{self.name}:marks:1", "number") or 0)  # type: ignore[arg-type]
        return -1

    def prove(self, registry: str = "") -> None:
        """Compare the topics with Postgres, value by value, with readers that are not ours.

        ``registry`` is where the schemas are; the embedded one's address if none is given.
        """
        self.bridge.wait_for("the worker tells where it answers", lambda: "worker" in self.bridge.status())
        with Topics(self.servers.kafka.bootstrap_servers, registry or self.bridge.registry) as topics:
            prove_topics(self.bridge.config, topics, self.histories[0].seed if self.histories else 0)

    def log(self, size: int = 20_000) -> str:
        return self.bridge.output[-size:]
