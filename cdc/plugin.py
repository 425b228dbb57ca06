"""What a connector and a converter implement: the seams between the runtime and its plugins.

Connectors do not know the runtime; the runtime knows connectors only through this page. Plugins are found by the
entry points ``cdc.connectors``, ``cdc.converters``, ``cdc.transforms`` and ``cdc.predicates``; a plugin may add the
class names of Kafka Connect, Debezium and Confluent that it answers to in ``aliases``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from cdc.errors import FatalError, Finding, TableError
from cdc.record import ConnectRecord, RawRow, RowChange, RowShape, Schema, Transaction

__all__ = [
    "Connector",
    "ConnectorConfig",
    "Converter",
    "Encoder",
    "KeyEncoder",
    "KeyMemory",
    "Predicate",
    "SignalTopic",
    "SinkConnector",
    "SourceConnector",
    "SourceTask",
    "Stream",
    "Survey",
    "Sweep",
    "TaskContext",
    "Transform",
    "ValueEncoder",
]


def _dotted(name: str) -> str:
    return name.replace("_", ".")


class ConnectorConfig(BaseModel):
    """The settings that every connector has. A connector subclasses it with its own.

    A field ``slot_name`` is the property ``slot.name``. Descriptions are the documentation of the property;
    unknown properties are errors. Values arrive as strings, as in Kafka Connect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_dotted, hide_input_in_errors=True)

    name: str = Field(description="Name of the connector, unique in the worker.")
    connector_class: str = Field(description="The plugin: a short name or a class name of Connect's world.")
    tasks_max: int = Field(default=1, ge=1, le=256, description="Most tasks to run side by side.")
    key_converter: str = Field(default="avro", description="Converter for record keys.")
    value_converter: str = Field(default="avro", description="Converter for record values.")

    errors_tolerance: Literal["none", "all"] = Field(
        default="none",
        description="none: the task stops in front of a record that is at fault; all: the record goes to "
        "errors.deadletterqueue.topic.name or, without one, is skipped, counted and logged.",
    )
    errors_deadletterqueue_topic_name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._\-]*$",
        max_length=249,
        description="Topic that records at fault are written to, with errors.tolerance=all.",
    )
    errors_deadletterqueue_topic_replication_factor: int = Field(
        default=3, ge=-1, description="Its replication factor, when it is created; -1 is the broker's default."
    )
    errors_deadletterqueue_context_headers_enable: bool = Field(
        default=False,
        description="Add Connect's headers (__connect.errors.…) to dead letters, beside the header cdc.letter.",
    )
    errors_retry_timeout: int = Field(
        default=0,
        ge=-1,
        description="Milliseconds for which a record that a transform says may be tried again is; -1 for ever. What is "
        "away (Kafka, Redis, the registry) is waited for without end.",
    )
    errors_retry_delay_max_ms: int = Field(
        default=60_000, ge=1, description="Longest pause between two such attempts; the first is 300 ms, doubled then."
    )
    errors_log_enable: bool = Field(
        default=False, description="Log each record at fault; one that is skipped without a queue always is."
    )
    errors_log_include_messages: bool = Field(
        default=False, description="Tell in these lines the record's time and headers, and a source's record itself."
    )


@dataclass(frozen=True)
class TaskContext:
    """What the runtime hands to a task.

    ``report`` tells the supervisor a named figure or text at once (``report("phase", "snapshot")``);
    ``stopping`` is true from the moment the task is asked to stop.
    """

    connector: str
    task: int
    worker: str
    report: Callable[[str, Any], None]
    stopping: Callable[[], bool]


class Connector(ABC):
    """A connector of either kind, made from its validated settings."""

    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type[ConnectorConfig]]
    foreign: ClassVar[Mapping[str, tuple[tuple[str, ...], str]]] = {}
    """Properties of what this connector stands in for that have no field in its model, but are known: the values that
    can be accepted (none listed: all), and why they change nothing here. Other values are errors."""
    foreign_prefixes: ClassVar[Mapping[str, str]] = {}
    """Prefixes of such properties that are accepted whatever they say, and why."""

    def __init__(self, config: ConnectorConfig) -> None:
        self.config = config

    def validate(self, siblings: Mapping[str, Connector]) -> Sequence[Finding]:  # noqa: ARG002 - for subclasses
        """Faults that single fields cannot show: contradictions, clashes with ``siblings``. No I/O."""
        return ()

    @abstractmethod
    def check(self) -> Sequence[Finding]:
        """Preflight against the live server: each finding has the statement or setting that mends it."""


@dataclass(frozen=True)
class Stream:
    """A topic that a source writes, and the table it carries; ``key`` are the columns of its record key."""

    topic: str
    schema: str
    table: str
    key: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What a source would capture from its live server: the streams, and what forbids to start."""

    streams: Sequence[Stream]
    findings: Sequence[Finding]


@dataclass(frozen=True)
class SignalTopic:
    """Where signals to a source are written: the values of all records with this key."""

    topic: str
    key: bytes


class SourceConnector(Connector):
    """Makes the task that reads an external system."""

    @property
    def signals(self) -> SignalTopic | None:
        """The topic that the runtime reads for this source's tasks (`SourceTask.signal`); ``None`` for none."""
        return None

    def check_signal(self, kind: str, data: Any) -> None:
        """Look at a signal before it is written: `cdc.errors.DataError` for one that no task could act on."""

    def survey(self) -> Survey:
        """Ask the live server. `cdc.errors.RetriableError` when it is away: the tasks will wait for it."""
        return Survey((), ())

    @property
    def refuses_incompatible_schemas(self) -> bool:
        """Whether a table stops when the registry refuses its new value schema, instead of the subject's compatibility
        being set to NONE."""
        return False

    @property
    def queues_incompatible_schemas(self) -> bool:
        """Whether the changes of such a table go to the dead letter queue until its schema is taken."""
        return False

    @abstractmethod
    def task(self, context: TaskContext) -> SourceTask: ...


class SinkConnector(Connector):
    """Makes the store that the runtime's sink task writes topics into (`cdc.mirror.store`)."""

    def fits(self, streams: Sequence[Stream]) -> Sequence[Finding]:  # noqa: ARG002 - for subclasses
        """Faults of this sink's settings for the topics that the sources of the same worker write."""
        return ()

    @abstractmethod
    def store(self, context: TaskContext) -> Any: ...

    def mender(self, topic: str, partitions: int, client: str, topic_id: str | None = None) -> Any:  # noqa: ARG002
        """The rows of one topic as a rebuild sees them (`cdc.mirror.mending.Mender`); ``client`` names it to the store.

        `FatalError` for a store whose rows cannot be rebuilt in place.
        """
        raise FatalError(f"{type(self).__name__} cannot rebuild rows in place ({topic}, {partitions}, {client})")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Asks for a delete and a tombstone for every key of a topic that no row has any more (EXACTNESS.md H11).

    All rows have been read again since the `cdc.record.Position` whose text is ``since``, and whatever happened to them
    after it was told: a key whose last record is older is a ghost. With ``renew`` every key is, because the table's
    key has changed: then follow a truncate, so that no sink applies a late tombstone to a row told anew, and a new
    key schema (H14).
    """

    shape: RowShape
    since: bytes
    renew: bool = False


class SourceTask(ABC):
    """Reads an external system, in the calling thread alone.

    The runtime's loop is: `poll`, produce what came, and from time to time in one Kafka transaction the
    records and what `offsets` says, then `committed`. Whenever the runtime waits for something else it calls
    `keep_alive` at least every `keep_alive_interval` seconds.
    """

    keep_alive_interval: float = 1.0
    source_id: str = ""
    """What this task reads (a slot's name): with the connector's name, the source that positions compare within."""

    headers: Sequence[tuple[str, bytes]] = ()
    """Headers that every record of this task gets, behind its own."""

    def __init__(self) -> None:
        self.sweeps: list[Sweep] = []
        """Asked of the runtime after the last `poll`; the runtime takes them, and answers each with `swept`."""

    @property
    def finished(self) -> bool:
        """Whether there will never be more records."""
        return False

    def metrics(self) -> Mapping[str, float]:
        """Figures for the supervisor."""
        return {}

    @abstractmethod
    def start(self, offsets: Mapping[str, Any]) -> None:
        """Connect and take up at what is stored: partition (JSON text) → offset (a JSON value)."""

    @abstractmethod
    def poll(self, timeout: float) -> Sequence[RowChange | ConnectRecord]:
        """The next records, in order; empty when none came within ``timeout`` seconds."""

    @abstractmethod
    def offsets(self) -> Mapping[str, Any]:
        """What must be stored together with all records returned so far; empty when nothing is new.

        ``None`` as a value deletes the partition's offset. May be called only between polls; the records of one
        change message are always in one poll.
        """

    @abstractmethod
    def committed(self) -> None:
        """What the last `offsets` said is durable, with all records before it: acknowledge upstream."""

    def signal(self, payload: bytes, place: str) -> None:
        """Do what somebody asks, between two polls. ``place`` names the record, and is the same if it comes again.

        What is done must be told by the next `offsets`, which is stored together with the signal's place. A payload
        that cannot be acted on is said, and is no error.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no signals: {place}, {len(payload)} bytes")

    def swept(self, sweep: Sweep, declined: str = "") -> None:
        """All its ghosts are deleted, in the Kafka transaction that stores the next `offsets` at the latest; or none
        is, for the reason in ``declined``."""
        raise NotImplementedError(f"{type(self).__name__} asked for no sweep of {sweep.shape.topic}")

    def place(self) -> tuple[Transaction, int, int]:
        """Transaction, LSN and ordinal of the last change message. Records of it from index 2^31 on come after all that
        were returned so far and before all that will be."""
        raise NotImplementedError(f"{type(self).__name__} has no place for records of the runtime")

    def refuse(self, shape: RowShape, error: TableError, *, queued: bool = False) -> None:  # noqa: ARG002
        """The records of this shape cannot be written, and are left out from here on.

        The next `offsets` must say so, and the table must be read again when it is mended. A source that cannot do
        without them raises ``error``. With ``queued`` its changes are still to be returned: they go to the dead letter
        queue.
        """
        raise error

    def accepted(self, shape: RowShape) -> None:  # noqa: B027 - for subclasses
        """The records of a shape whose changes went to the queue can be written: the table must be read again."""

    @abstractmethod
    def keep_alive(self) -> None:
        """Tell the source that this task lives, if it is time to. Never blocks, reads no data."""

    @abstractmethod
    def stop(self) -> None:
        """Release everything, keep nothing half done. Called once, also after an error."""


KeyEncoder = Callable[[RowChange], "bytes | None"]
"""Record → key bytes; ``None`` for a keyless one."""
Encoder = Callable[[Any], "bytes | None"]
"""Native value → wire bytes; ``None`` for what is written as nothing (a tombstone, a missing key)."""
ValueEncoder = Callable[[RowChange, int], "bytes | None"]
"""Record, processing time (microseconds since 1970 UTC) → value bytes; ``None`` for a tombstone."""


class KeyMemory(Protocol):
    """What a key converter must remember for ever about a topic (EXACTNESS.md H14), stored with the offsets."""

    def get(self, topic: str) -> Mapping[str, Any] | None: ...

    def put(self, topic: str, state: Mapping[str, Any]) -> None: ...


class Converter(ABC):
    """Turns records into wire bytes and back, for keys or for values."""

    aliases: ClassVar[tuple[str, ...]] = ()
    writes_rows: ClassVar[bool] = True
    """Whether it writes changes of rows so that they can be read back; else it is for what transforms made of them."""
    nulls_have_schemas: ClassVar[bool] = False
    """Whether a null with a schema is written otherwise than one without, which is nothing."""
    tells_types: bool = True
    """Whether what is read back has the schema that it was written with; else the runtime tells what is needed of it in
    a header (`cdc.codec.told_schema`). Known after `configure`."""
    refuses_incompatible: bool = False
    """Set by the runtime: a value schema that the registry refuses as incompatible is a `cdc.errors.SchemaRefused`."""

    @abstractmethod
    def configure(self, config: Mapping[str, str], *, is_key: bool) -> None:
        """Take the properties (prefix removed). `ConfigError` for what is wrong in them."""

    @abstractmethod
    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        """Compile the keys of ``shape``. May ask the registry (`cdc.errors.RetriableError` when it is away)."""

    @abstractmethod
    def control_key(self, partition: int) -> bytes:
        """The key of a record that is about a whole partition (a truncate): never the key of a row."""

    def key_row(self, shape: RowShape, key: bytes) -> RawRow | None:  # noqa: ARG002 - for subclasses
        """A row of ``shape`` with the columns of this key and NULL in the others; ``None`` if the bytes do not tell."""
        return None

    def renew_keys(self, topic: str, memory: KeyMemory) -> None:
        """Every key of the topic has been deleted: its next key schema may be any (EXACTNESS.md H14)."""
        memory.put(topic, {"anew": True})

    def close(self) -> None:  # noqa: B027 - most converters hold nothing
        """Release connections. Called once."""

    @abstractmethod
    def value_encoder(self, shape: RowShape) -> ValueEncoder:
        """Compile the values of ``shape``. May ask the registry (`cdc.errors.RetriableError` when it is away)."""

    @abstractmethod
    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        """Compile native values of any ``schema`` (Connect's ``fromConnectData``); ``None`` is a value without schema.

        May ask the registry (`cdc.errors.RetriableError` when it is away). `FatalError` for a schema that this
        converter cannot write.
        """

    @abstractmethod
    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        """Schema and native value of a payload that any producer wrote (Connect's ``toConnectData``).

        The schema is ``None`` for values without one, which are then JSON's: texts, ints, ``decimal.Decimal`` for all
        other numbers, lists, dicts, booleans; and for ``None``, a tombstone's payload. It is the same object for all
        payloads of one writer schema, as far as this converter remembers it. May ask the registry. `DataError` for
        bytes that this converter cannot read, `cdc.errors.RetriableError` when the registry is away.
        """


class Transform(ABC):
    """Changes records one by one, between source and converter (a transformation of Kafka Connect).

    Made once for each task and used by one thread. What it derives from a schema it makes once: a record's schemas are
    the same objects for all records of one kind, and those it makes must be, too.
    """

    aliases: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def configure(self, config: Mapping[str, str]) -> None:
        """Take the properties (``transforms.<name>.`` removed). `ConfigError` for all that is wrong in them."""

    @property
    def keeps_place(self) -> bool:
        """Whether every record of a row stays in its topic, under its key and in the partition of that key.

        Then keys of rows that are gone can be found in the topic and deleted (EXACTNESS.md H11).
        """
        return False

    @property
    def drops(self) -> frozenset[str]:
        """Operations (Debezium's) that remove rows and get no record, so that the rows stay in a mirror."""
        return frozenset()

    @abstractmethod
    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        """The record to write instead; ``None`` for none. `DataError` for one that cannot be changed so.

        The record given is not changed in place, nor are its values.
        """

    def close(self) -> None:  # noqa: B027 - most transforms hold nothing
        """Release what is held. Called once."""


class Predicate(ABC):
    """Tells which records a transform is for (a predicate of Kafka Connect)."""

    aliases: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def configure(self, config: Mapping[str, str]) -> None:
        """Take the properties (``predicates.<name>.`` removed). `ConfigError` for what is wrong in them."""

    @abstractmethod
    def test(self, record: ConnectRecord) -> bool:
        """Whether the record is one of those."""
