"""What sink tests share: a registry, a feed of Debezium envelopes with our headers, sinks in threads and processes."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.local.kafka import Kafka
from cdc.local.redis_cluster import RedisCluster
from cdc.mirror.store import Partition
from cdc.plugin import TaskContext
from cdc.record import HEADER_POSITION, HEADER_SOURCE, Position
from cdc.redis.cluster.witnesses import witnessed
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector
from cdc.redis.fence import offset_key
from cdc.runtime.sink_task import run_sink_task

PATIENCE_S = 120.0


def eventually(condition: Callable[[], Any], what: str = "", patience: float = PATIENCE_S) -> Any:
    """Wait until ``condition`` is true, and return it."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {patience:.0f} s: {what or condition}")
        time.sleep(0.01)
    return value


class Schemas:
    """The part of a schema registry that readers need, over HTTP. ``away`` makes it answer 503."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.away = False
        schemas = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.partition("?")[0].rsplit("/", 1)[1])
                if schemas.away:
                    self._answer(503, {"error_code": 50003, "message": "away"})
                elif number in schemas.texts:
                    self._answer(200, {"schema": schemas.texts[number]})
                else:
                    self._answer(404, {"error_code": 40403, "message": "Schema not found"})

            def _answer(self, status: int, body: Mapping[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, schema: Mapping[str, Any]) -> int:
        text = json.dumps(schema)
        for number, known in self.texts.items():
            if known == text:
                return number
        number = len(self.texts) + 1
        self.texts[number] = text
        return number

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Bench:
    """A broker, a Redis and a registry, and names of the test's own."""

    kafka: Kafka
    redis: Any
    schemas: Schemas
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")
    converters: Mapping[str, str] = field(default_factory=dict)
    """Properties of the sink's converters (``value.converter.schemas.enable``)."""

    def table(self, name: str = "users", **options: Any) -> Table:
        return Table(self, f"{self.prefix}.public.{name}", **options)

    def worker(self) -> dict[str, str]:
        return {
            "bootstrap.servers": self.kafka.bootstrap_servers,
            "schema.registry.url": self.schemas.url,
            "group.id": "cdc",
            "consumer.session.timeout.ms": "6000",
            **self.converters,
        }

    def settings(self, **more: str) -> dict[str, str]:
        """Settings of a sink connector of the test's own."""
        return {
            "name": f"{self.prefix}-sink",
            "connector.class": "redis",
            "topics.regex": f"{self.prefix}\\..*",
            "topics.refresh.ms": "200",
            "redis.uri": self.redis.url,
            "redis.cluster.enabled": str(self.clustered).lower(),
            "redis.key": self.prefix + ":{table}:{pk}",
            **{key.replace("_", "."): value for key, value in more.items()},
        }

    @property
    def clustered(self) -> bool:
        return isinstance(self.redis, RedisCluster)

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        client = self.redis.client()
        try:
            yield client
        finally:
            client.close()

    def dump(self) -> dict[str, dict[str, str]]:
        """All rows of the test in Redis."""
        with self.client() as client:
            keys = sorted(client.scan_iter(match=f"{self.prefix}:*", count=1000))
            pipe = client.pipeline(transaction=False)
            for key in keys:
                pipe.hgetall(key)
            rows = pipe.execute()
        return {
            key.decode().removeprefix(f"{self.prefix}:"): {
                k.decode(): v.decode() for k, v in row.items() if k != b"__cdc:version"
            }
            for key, row in zip(keys, rows, strict=True)
        }

    def offset(self, topic: str, partition: int = 0) -> Mapping[str, Any] | None:
        """What Redis holds about a partition."""
        name, part = f"{self.prefix}-sink", Partition(topic, partition)
        with self.client() as client:
            if self.clustered:
                stored = witnessed(client.hget, name, part)
                return None if stored is None else json.loads(stored.encode())
            text = client.get(offset_key(name, part))
        return None if text is None else json.loads(text)


COLUMNS: dict[str, Any] = {"id": "long", "name": ["null", "string"], "score": ["null", "int"]}


class Table:
    """A topic of Debezium envelopes as our source writes them, and what its table holds by now."""

    def __init__(
        self,
        bench: Bench,
        topic: str,
        *,
        columns: Mapping[str, Any] | None = None,
        key: tuple[str, ...] = ("id",),
        partitions: int = 1,
        positions: bool = True,
        policy: str = "compact",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.bench = bench
        self.topic = topic
        self.name = topic.rsplit(".", 1)[1]
        self.key = key
        self.partitions = partitions
        self.positions = positions
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.epoch, self.lsn = 1, 100
        self.source = b"shop/slot"
        self.sent = 0
        self.timestamp = 0
        """Of records, in ms since 1970; 0 is now."""
        self.alter(columns or COLUMNS)
        admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
        config = {"cleanup.policy": policy, **(settings or {})}
        admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(timeout=30)
        self.producer = Producer(
            {
                "bootstrap.servers": bench.kafka.bootstrap_servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 2,
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 1 << 20,
            }
        )

    def alter(self, columns: Mapping[str, Any]) -> None:
        """The table has these columns from now on."""
        self.columns = dict(columns)
        fields = [{"name": name, "type": kind} for name, kind in self.columns.items()]
        row = {"type": "record", "name": "Value", "fields": fields}
        envelope = {
            "type": "record",
            "name": "Envelope",
            "namespace": self.topic.replace("-", "_"),
            "fields": [
                {"name": "before", "type": ["null", row]},
                {"name": "after", "type": ["null", "Value"]},
                {"name": "op", "type": "string"},
            ],
        }
        key = {"type": "record", "name": "Key", "fields": [field for field in fields if field["name"] in self.key]}
        self._value = self._registered(envelope)
        self._key = self._registered(key)

    def _registered(self, schema: dict[str, Any]) -> tuple[bytes, Any]:
        number = self.bench.schemas.add(schema)
        return b"\0" + number.to_bytes(4, "big"), fastavro.parse_schema(schema)

    def _encode(self, schema: tuple[bytes, Any], value: Any) -> bytes:
        out = io.BytesIO(schema[0])
        out.seek(0, 2)
        fastavro.schemaless_writer(out, schema[1], value)
        return out.getvalue()

    def commit(self) -> None:
        """Following changes belong to a later transaction."""
        self.lsn += 10

    def position(self) -> bytes:
        self.sent += 1
        return Position(self.epoch, self.lsn, self.sent, 0).text()

    def send(
        self,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Mapping[str, bytes] | None = None,
        position: bytes | None = None,
    ) -> None:
        sent: dict[str, bytes] = dict(headers or {})
        if self.positions:
            sent = {HEADER_SOURCE: self.source, HEADER_POSITION: position or self.position(), **sent}
        where = {} if partition is None else {"partition": partition}
        self.producer.produce(
            self.topic, key=key, value=value, headers=list(sent.items()), timestamp=self.timestamp, **where
        )

    def key_of(self, row: Mapping[str, Any]) -> bytes:
        return self._encode(self._key, {name: row[name] for name in self.key})

    def put(self, headers: Mapping[str, bytes] | None = None, **row: Any) -> None:
        """An insert or update."""
        full = {name: row.get(name) for name in self.columns}
        self.rows[tuple(full[name] for name in self.key)] = full
        value = self._encode(self._value, {"before": None, "after": full, "op": "u"})
        self.send(self.key_of(full), value, headers=headers)

    def delete(self, **key: Any) -> None:
        """A delete and its tombstone."""
        self.rows.pop(tuple(key[name] for name in self.key), None)
        encoded = self.key_of(key)
        before = {name: key.get(name) for name in self.columns}
        self.send(encoded, self._encode(self._value, {"before": before, "after": None, "op": "d"}))
        self.send(encoded, None)

    def truncate(self) -> None:
        """A truncate to every partition, with the same position and a key that is none of a row."""
        position = self.position()
        value = self._encode(self._value, {"before": None, "after": None, "op": "t"})
        for partition in range(self.partitions):
            self.send(b"truncate-%d" % partition, value, partition=partition, position=position)
        self.rows.clear()

    def flush(self) -> Table:
        """All that was sent is in the topic."""
        assert self.producer.flush(60) == 0
        return self

    def expected(self) -> dict[str, dict[str, str]]:
        """What Redis must hold."""
        return {
            f"{self.name}:{':'.join(str(part) for part in key)}": {
                name: str(value) for name, value in row.items() if value is not None
            }
            for key, row in self.rows.items()
        }


class Sink:
    """A sink task in a thread of this process."""

    def __init__(self, bench: Bench, task: int = 0, **settings: str) -> None:
        connector = RedisSinkConnector(RedisConfig.model_validate(bench.settings(**settings)))
        self.reports: dict[str, Any] = {}
        self.history: list[tuple[str, Any]] = []
        self._stop = threading.Event()
        self.error: BaseException | None = None
        name = connector.config.name
        context = TaskContext(name, task, "test", self._report, self._stop.is_set)

        def run() -> None:
            try:
                run_sink_task(connector, context, bench.worker())
            except BaseException as error:  # noqa: BLE001 - handed to the test
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def _report(self, name: str, value: Any) -> None:
        self.reports[name] = value
        self.history.append((name, value))

    def ended(self) -> BaseException | None:
        """The error that the task ended with, once it has ended."""
        return None if self._thread.is_alive() else self.error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.stop()
        if kind is None and self.error is not None:
            raise self.error


class SinkProcess:
    """A sink task in a process that a test may kill.

    ``die`` is where it kills itself: ``before`` or ``after`` a call of ``module:Class.method``, the ``n``-th.
    """

    def __init__(self, bench: Bench, task: int = 0, die: tuple[str, str, int] | None = None, **settings: str) -> None:
        order = {"settings": bench.settings(**settings), "worker": bench.worker(), "task": task, "die": die}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("sink_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.reports: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            name, value = json.loads(line)
            self.reports[name] = value

    def pause(self) -> None:
        """Stand still, as a process that the machine forgot."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop, as the worker does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self._reader.join(PATIENCE_S)
