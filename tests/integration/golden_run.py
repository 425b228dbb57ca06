# ruff: noqa: ARG002 - stand-ins take all that they stand in for is given
"""Running a history of ``tests/golden`` through the source task as the worker does, Kafka and registry in memory.

Everything is real but the two: configuration, connector, Postgres, the loop of `cdc.runtime.source_task`, encoders.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.codec.avro_binary import writer
from cdc.codec.connect_rows import row_values
from cdc.config import loads
from cdc.converters.avro import AvroConverter
from cdc.converters.json_converter import JsonConverter
from cdc.plugin import Converter, Encoder, KeyEncoder, KeyMemory, SourceConnector, TaskContext, ValueEncoder
from cdc.record import RowChange, RowShape, Schema
from cdc.runtime import source_task, source_writer
from tests.fix_servers import Database
from tests.integration.golden_compare import HEARTBEATS

GOLDEN = Path(__file__).parents[1] / "golden"
VERSION = version("cdc")
PATIENCE_S = 30
_PARTITIONS = "topic.creation.default.partitions"


@dataclass
class Recording:
    """What was written: records as the JSON converter has them, schemas in order of appearance."""

    records: list[dict[str, Any]] = field(default_factory=list)
    connect: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    avro: dict[str, list[str]] = field(default_factory=dict)
    offsets: dict[str, Any] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    phases: list[str] = field(default_factory=list)
    started: bool = False
    failure: BaseException | None = None

    def read(self, topic: str, side: str, data: bytes | None) -> Any:
        """The value that the JSON converter wrote; its schema, if it has one, is remembered."""
        known = self.connect.setdefault(topic, {"key": [], "value": []})[side]
        value = None if data is None else json.loads(data)
        if not isinstance(value, dict) or value.keys() != {"schema", "payload"}:
            return value
        if value["schema"] is not None and value["schema"] not in known:
            known.append(value["schema"])
        return value["payload"]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        with self.changed:
            while not condition():
                if self.failure is not None:
                    raise self.failure
                left = deadline - time.monotonic()
                assert left > 0, f"not reached: {what}; {len(self.records)} records so far"
                self.changed.wait(left)

    def report(self, name: str, value: Any) -> None:
        with self.changed:
            if name == "phase":
                self.phases.append(str(value))
            self.started |= name == "stream"
            self.changed.notify_all()

    @property
    def snapshot_told(self) -> bool:
        return self.started and (not self.phases or self.phases[-1] == "streaming")

    def lsn(self) -> int:
        """How far the stored position has come."""
        return max((int(offset["lsn"]) for offset in self.offsets.values() if "epoch" in offset), default=0)


class _Registry:
    """A registry that takes every schema and keeps their order."""

    def __init__(self, subjects: dict[str, list[str]]) -> None:
        self._subjects = subjects

    def register(self, subject: str, schema_json: str, /) -> int:
        versions = self._subjects.setdefault(subject, [])
        if schema_json not in versions:
            versions.append(schema_json)
        return versions.index(schema_json) + 1

    lookup = register

    def latest(self, subject: str, /) -> tuple[int, str] | None:
        return None

    def set_compatibility(self, subject: str, level: str, /) -> None:
        raise AssertionError(f"{subject}: nothing was refused")

    def close(self) -> None:
        pass


class _Avro(AvroConverter):
    def __init__(self, subjects: dict[str, list[str]]) -> None:
        super().__init__()
        self._subjects = subjects

    def _client(self, url: str, config: Mapping[str, str]) -> _Registry:
        return _Registry(self._subjects)


class _Memory(dict[str, Mapping[str, Any]]):
    """What the Avro keys are remembered by: the session's memory is the JSON converter's."""

    def put(self, topic: str, state: Mapping[str, Any]) -> None:
        self[topic] = state


class _Both(Converter):
    """Writes JSON with Connect's JSON converter and, beside it, the same as Avro, unless names are no Avro names."""

    nulls_have_schemas = True

    def __init__(self, recording: Recording, *, avro: bool) -> None:
        self._json = JsonConverter()
        self._avro = _Avro(recording.avro) if avro else None
        self._memory = _Memory()

    def configure(self, config: Mapping[str, str], *, is_key: bool) -> None:
        self._json.configure({k: v for k, v in config.items() if not k.startswith("schema.reg")}, is_key=is_key)
        if self._avro is not None:
            properties = {"schema.registry.url": "http://in.memory", "avro.logical.types": "false"}
            self._avro.configure(properties, is_key=is_key)

    def control_key(self, partition: int) -> bytes:
        raise AssertionError("the topics of the recording are not compacted")

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        raise AssertionError("a source reads nothing")

    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        written = self._json.key_encoder(shape, memory)
        if self._avro is None or shape.key_schema is None:
            return written
        avro, native = self._avro.key_encoder(shape, self._memory), row_values(shape, VERSION).key
        general = writer(shape.key_schema)

        def encode(change: RowChange) -> bytes | None:
            value = native(change)
            assert (avro(change) or b"")[5:] == (b"" if value is None else general(value))
            return written(change)

        return encode

    def value_encoder(self, shape: RowShape) -> ValueEncoder:
        written = self._json.value_encoder(shape)
        if self._avro is None:
            return written
        avro, native = self._avro.value_encoder(shape), row_values(shape, VERSION).envelope
        general = writer(shape.envelope_schema)

        def encode(change: RowChange, now_us: int) -> bytes | None:
            value = native(change, now_us)
            assert (avro(change, now_us) or b"")[5:] == (b"" if value is None else general(value))
            return written(change, now_us)

        return encode

    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        written, made = self._json.encoder(topic, schema), list[Encoder]()

        def encode(value: Any) -> bytes | None:
            if value is not None and self._avro is not None:
                made[:] = made or [self._avro.encoder(topic, schema)]
                assert made[0](value) is not None
            return written(value)

        return encode


class _Topics:
    def __init__(self, worker: Mapping[str, str]) -> None:
        self._partitions = max(1, int(worker.get(_PARTITIONS, "1")))

    def ensure(self, topic: str, config: Mapping[str, str], *, partitions: int = 0, replication: int = 0) -> int:
        return partitions or self._partitions

    def watch(self, topics: Collection[str]) -> None:
        """No broker: no topic goes away."""

    def look(self) -> None:
        """No broker: no topic goes away."""


class _Producer:
    """Keeps what is committed in ``recording``; puts keys into the partitions where Java's producer puts them."""

    def __init__(self, recording: Recording, worker: Mapping[str, str]) -> None:
        self._recording = recording
        self._partitions = max(1, int(worker.get(_PARTITIONS, "1")))
        self._offsets_topic = worker["offset.storage.topic"]
        self._pending: list[dict[str, Any]] = []
        self._offsets: dict[str, Any] = {}
        self.records = self.bytes = 0

    def start(self) -> None:
        pass

    def poll(self) -> None:
        pass

    def close(self) -> None:
        pass

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int = -1,
        timestamp: int = 0,
    ) -> None:
        self.records += 1
        if topic == self._offsets_topic:
            assert key is not None
            self._offsets[key.decode()] = None if value is None else json.loads(value)
            return
        if partition < 0:
            partition = 0 if key is None else (_murmur2(key) & 0x7FFFFFFF) % self._partitions
        self._pending.append(
            {
                "topic": topic,
                "partition": partition,
                "key": self._recording.read(topic, "key", key),
                "value": self._recording.read(topic, "value", value),
                "headers": [[name, text.decode()] for name, text in headers or () if not name.startswith("cdc.")],
            }
        )

    def commit(self) -> None:
        recording = self._recording
        with recording.changed:
            recording.records += self._pending
            recording.offsets |= self._offsets
            self._pending, self._offsets, self.records = [], {}, 0
            recording.changed.notify_all()


class Scenario:
    """One folder of ``tests/golden``."""

    def __init__(self, name: str) -> None:
        self.folder = GOLDEN / name
        self.properties: dict[str, str] = self.json("connector.json")
        self.prefix = self.properties["topic.prefix"]

    def json(self, name: str, default: Any = None) -> Any:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() or default is None else default

    def sql(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def run(self, database: Database, monkeypatch: pytest.MonkeyPatch, extra: Mapping[str, str]) -> Recording:
        """Play the history; what was written."""
        recording = Recording()
        with database.connect(options="-c TimeZone=UTC") as connection:
            play(connection, self.sql("scenario.sql"))
            with self._running(recording, database, monkeypatch, extra):
                recording.wait(lambda: recording.snapshot_told, "the end of the snapshot")
                for part in self.sql("changes.sql").split("-- sync\n"):
                    _settle(connection, recording)
                    play(connection, part)
                _settle(connection, recording)
                self._await_heartbeat(recording)
        return recording

    def _await_heartbeat(self, recording: Recording) -> None:
        if int(self.properties.get("heartbeat.interval.ms", "0")):
            recording.wait(
                lambda: any(record["topic"].startswith(HEARTBEATS) for record in recording.records), "a heartbeat"
            )

    def _running(
        self, recording: Recording, database: Database, monkeypatch: pytest.MonkeyPatch, extra: Mapping[str, str]
    ) -> _Task:
        info = database.conninfo
        properties = {
            **json.loads((GOLDEN / "base.json").read_text(encoding="utf-8")),
            "signal.enabled.channels": "source",  # there is no broker
            **self.properties,
            "database.hostname": info["host"],
            "database.port": str(info["port"]),
            "database.user": info["user"],
            "database.password": info["password"],
            "database.dbname": info["dbname"],
            **extra,
        }
        form = {"worker": {"bootstrap.servers": "127.0.0.1:1"}, "connectors": {"golden": properties}}
        (spec,) = loads({"golden.yaml": json.dumps(form)}).connectors
        assert isinstance(spec.connector, SourceConnector)
        avro = not (self.folder / "avro-error.txt").exists()
        monkeypatch.setattr(source_writer, "find_converter", lambda _name: lambda: _Both(recording, avro=avro))
        monkeypatch.setattr(source_task, "Topics", lambda worker, *_: _Topics(worker))
        monkeypatch.setattr(source_task, "RecordProducer", lambda worker, *_: _Producer(recording, worker))
        monkeypatch.setattr(source_task, "read_offsets", lambda *_: {})
        monkeypatch.setattr(source_task, "IDLE_POLL_S", 0.05)
        return _Task(spec.connector, spec.worker, recording)


class _Task:
    """The task in a thread of its own, for the length of a block."""

    def __init__(self, connector: SourceConnector, worker: Mapping[str, str], recording: Recording) -> None:
        self._stopping = threading.Event()
        self._recording = recording
        context = TaskContext("golden", 0, "test", recording.report, self._stopping.is_set)
        self._thread = threading.Thread(target=self._run, args=(connector, context, worker))

    def _run(self, connector: SourceConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
        try:
            source_task.run_source_task(connector, context, worker)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            with self._recording.changed:
                self._recording.failure = error
                self._recording.changed.notify_all()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def _settle(connection: psycopg.Connection[Any], recording: Recording) -> None:
    """Wait until everything so far is durable, with the position behind it."""
    row = connection.execute("select pg_logical_emit_message(true, 'cdc.mark', '') - '0/0'::pg_lsn").fetchone()
    assert row is not None
    recording.wait(lambda: recording.lsn() > row[0], "everything so far in Kafka")


def play(connection: psycopg.Connection[Any], script: str) -> None:
    """Run a script statement by statement, as psql does."""
    for statement in statements(script):
        connection.execute(statement.encode())


def statements(script: str) -> Iterator[str]:
    """The statements of a script; semicolons in quotes, dollar quotes and comments end none."""
    start = at = 0
    while at < len(script):
        rest = script[at:]
        if rest.startswith("--"):
            at = _after(script, "\n", at)
        elif rest.startswith("/*"):
            at = _after(script, "*/", at + 2)
        elif rest[0] in "'\"":
            at = _after_quoted(script, at)
        elif rest[0] == "$" and (tag := rest[1:].partition("$")[0]).replace("_", "").isalnum() | (tag == ""):
            at = _after(script, f"${tag}$", at + len(tag) + 2)
        elif rest[0] == ";":
            yield script[start : at + 1]
            start = at = at + 1
        else:
            at += 1
    assert not [line for line in script[start:].splitlines() if line.strip() and not line.startswith("--")]


def _after(script: str, end: str, at: int) -> int:
    found = script.find(end, at)
    return len(script) if found < 0 else found + len(end)


def _after_quoted(script: str, at: int) -> int:
    quote, escapes = script[at], at > 0 and script[at - 1] in "eE"
    at += 1
    while script[at] != quote:
        at += 2 if escapes and script[at] == "\\" else 1
    return at + 1


def _murmur2(data: bytes) -> int:
    """Kafka's hash of a key (``org.apache.kafka.common.utils.Utils.murmur2``)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
