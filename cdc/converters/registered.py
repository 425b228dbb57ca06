"""Converters whose payloads name a registered schema, beside Avro's: zero, schema id, and what the format has.

Subjects are ``<topic>-key`` and ``<topic>-value``. A value schema that the registry refuses as incompatible is the
mirror's to write all the same: the subject's compatibility becomes NONE, with a warning. A key schema never changes
(`cdc.converters.key_schemas`), nor does its id.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import structlog

from cdc.converters.avro_keys import START_ANEW, wiped
from cdc.converters.avro_reader import HEADER_SIZE, writer_schema
from cdc.converters.general import GeneralConverter
from cdc.converters.key_schemas import first_key_schema, key_schema_changes, remembered
from cdc.converters.refusals import refused_schema
from cdc.converters.settings import BOOLEAN, REGISTRY, Setting, read_settings
from cdc.errors import ConfigError, DataError, FatalError, Finding
from cdc.plugin import Encoder, KeyEncoder, KeyMemory
from cdc.record import Field, RowShape, Schema
from cdc.registry.client import RegistryClient
from cdc.registry.errors import IncompatibleSchema

__all__ = ["CONTROL_KEY", "ReadPlan", "RegisteredConverter", "TypedRegistry"]

CONTROL_KEY: Final = Schema("struct", name="cdc.ControlKey", fields=(Field("partition", Schema("int32")),))
"""What a record about a whole partition has as key. Its schema has an id that no table's key has."""
STRATEGIES: Final = {
    "TopicNameStrategy": None,
    "io.confluent.kafka.serializers.subject.TopicNameStrategy": None,
}
_log = structlog.get_logger(__name__)


class TypedRegistry(Protocol):
    """The part of `cdc.registry.client.RegistryClient` that these converters need."""

    def register(self, subject: str, schema: str, schema_type: str, /) -> int: ...

    def lookup(self, subject: str, schema: str, schema_type: str, /) -> int: ...

    def latest(self, subject: str, /) -> tuple[int, str] | None: ...

    def schema(self, schema_id: int, /) -> tuple[str, str]: ...

    def set_compatibility(self, subject: str, level: str, /) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How payloads of one writer schema are read: ``read`` takes what follows the schema id, and gives both the
    schema of the value and the value. `ValueError` for bytes that are none."""

    read: Callable[[bytes], tuple[Schema, Any]]


class RegisteredConverter(GeneralConverter):
    """What is the same for formats that live in a schema registry, Avro apart."""

    kind: ClassVar[str]
    """The registry's name for the type of schema."""
    label: ClassVar[str]
    """The converter's name in messages."""
    settings: ClassVar[tuple[Setting, ...]]
    ignored: ClassVar[frozenset[str]] = frozenset()

    common: ClassVar[tuple[Setting, ...]] = (
        Setting("auto.register.schemas", "true", "Register schemas; else they must be there.", BOOLEAN),
        Setting("key.subject.name.strategy", "TopicNameStrategy", "How subjects of keys are named.", STRATEGIES),
        Setting("value.subject.name.strategy", "TopicNameStrategy", "How subjects of values are named.", STRATEGIES),
        Setting("use.latest.version", "false", "Schemas are made from the tables: only false.", {"false": False}),
    )

    def __init__(self) -> None:
        super().__init__()
        self._registry: TypedRegistry | None = None
        self._register = True
        self._control_head: bytes | None = None
        self._plans: dict[bytes, ReadPlan] = {}

    def _configure(self, config: Mapping[str, str]) -> None:
        findings: list[Finding] = []
        url = config.get("schema.registry.url", "")
        if not url:
            findings.append(
                Finding(
                    f"the {self.label} converter needs a schema registry",
                    key="schema.registry.url",
                    remedy="Set schema.registry.url to its address, or to embedded for the worker's own",
                )
            )
        try:
            found = read_settings(self.label, (*self.common, *self.settings), config, _IGNORED | self.ignored)
        except ConfigError as error:
            raise ConfigError([*findings, *error.findings]) from None
        if findings:
            raise ConfigError(findings)
        self._register = found["auto.register.schemas"]
        self._take(found)
        self._registry = self._client(url, {key: value for key, value in config.items() if key.startswith(REGISTRY)})

    def _client(self, url: str, config: Mapping[str, str]) -> TypedRegistry:
        return RegistryClient(url, config)

    def close(self) -> None:
        """Close the connections to the registry. Encoders made before go on working."""
        if self._registry is not None:
            self._registry.close()

    # -- what a format is -----------------------------------------------------------------------

    @abstractmethod
    def _take(self, found: Mapping[str, Any]) -> None:
        """Take the values of the settings."""

    @abstractmethod
    def _form(self) -> str:
        """The form of the payloads in words, with all settings that make other bytes."""

    @abstractmethod
    def _text(self, topic: str, schema: Schema) -> str:
        """The text to register for ``schema``. `FatalError` for what the format cannot hold."""

    @abstractmethod
    def _connect(self, text: str) -> Schema:
        """The Connect schema of what is registered as a whole. `DataError` when there is none."""

    @abstractmethod
    def _payload(self, schema: Schema, text: str) -> Callable[[Any], bytes]:
        """The writer of what follows the schema id, for values of ``schema``, registered as ``text``."""

    @abstractmethod
    def _plan(self, text: str) -> ReadPlan:
        """How payloads of a registered schema are read. `DataError` when it has no form in Connect."""

    # -- keys -----------------------------------------------------------------------------------

    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        if shape.key_schema is not None and self._control_head is None:
            self._control_head = self._control()
        return super().key_encoder(shape, memory)

    def _row_key_encoder(self, shape: RowShape, schema: Schema, memory: KeyMemory) -> Encoder:
        known = memory.get(shape.topic)
        if known is not None and "anew" in known:
            # All keys are deleted: whatever the subject had binds nothing any more.
            self._client_or_raise().set_compatibility(f"{shape.topic}-key", "NONE")
            known = None
        if known is None:
            kept, text, number = self._first(shape, schema)
            memory.put(shape.topic, {**remembered(kept, self._form()), "text": text, "id": number})
            return self._encode(shape.topic, kept, text, number)
        kept = first_key_schema(shape, schema, known, self._form(), bare=False)
        subject, text, number = f"{shape.topic}-key", str(known["text"]), int(known["id"])
        try:
            found = self._id(subject, text)
        except IncompatibleSchema as refusal:
            raise wiped(shape.topic, subject, number, f"refuses it: {refusal}") from refusal
        if found != number:
            raise wiped(shape.topic, subject, number, f"gives id {found}")
        return self._encode(shape.topic, kept, text, number)

    def _first(self, shape: RowShape, schema: Schema) -> tuple[Schema, str, int]:
        """Schema, text and id for a key that nothing is remembered of: what the subject has, if it is the same key.

        So topics that others wrote, and connectors that lost their offsets, keep their keys.
        """
        subject = f"{shape.topic}-key"
        latest = self._latest(subject)
        if latest is not None:
            try:
                found = self._connect(latest[1])
            except DataError:
                pass  # a schema of another type, which the registry refuses below
            else:
                if not key_schema_changes(found, schema):
                    return found, latest[1], latest[0]
        text = self._text(shape.topic, schema)
        try:
            return schema, text, self._id(subject, text)
        except IncompatibleSchema as refusal:
            raise FatalError(
                f"{shape.topic}: the subject {subject} has the schema of another key than table {shape.schema}."
                f"{shape.table} has: {refusal}. If the topic is new, delete the subject; if it holds records, "
                f"{START_ANEW}"
            ) from refusal

    def _latest(self, subject: str) -> tuple[int, str] | None:
        return self._client_or_raise().latest(subject)

    def control_key(self, partition: int) -> bytes:
        if self._control_head is None:  # no key was encoded yet, or the schema was not registered then
            self._control_head = self._control()
        if self._control_head is None:
            raise FatalError(
                "a record about a whole partition needs a key, and the schema of such keys is not registered. Set "
                "key.converter.auto.register.schemas=true, or register "
                f"{self._text('', CONTROL_KEY)} as {self.kind} under the subject {self._control_subject()} and restart"
            )
        return self._control_head + self._payload(CONTROL_KEY, self._text("", CONTROL_KEY))({"partition": partition})

    def _control_subject(self) -> str:
        return f"cdc.control-key.{self.kind.lower()}"

    def _control(self) -> bytes | None:
        try:
            number = self._id(self._control_subject(), self._text("", CONTROL_KEY))
        except FatalError:
            if self._register:
                raise
            return None  # needed by a truncate only: `control_key` says so when one comes
        return b"\x00" + number.to_bytes(4, "big")

    # -- values ---------------------------------------------------------------------------------

    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        """As `cdc.plugin.Converter.encoder`. Without a schema only null can be written."""
        if schema is None:
            return self._nothing
        text = self._text(topic, schema)
        subject = f"{topic}-{'key' if self._is_key else 'value'}"
        number = self._id(subject, text) if self._is_key else self._value_id(subject, text)
        return self._encode(topic, schema, text, number)

    def _encode(self, topic: str, schema: Schema, text: str, number: int) -> Encoder:
        head, payload = b"\x00" + number.to_bytes(4, "big"), self._payload(schema, text)

        def encode(value: Any) -> bytes | None:
            if value is None:
                return None
            try:
                return head + payload(value)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{topic}: the value does not fit its schema: {error}") from error

        return encode

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        """As `cdc.plugin.Converter.to_connect`. Every schema id is compiled once."""
        if payload is None:
            return None, None
        header = payload[:HEADER_SIZE]
        plan = self._plans.get(header)
        if plan is None:
            what = "key" if self._is_key else "value"
            plan = self._plans[header] = self._plan(writer_schema(self._client_or_raise(), header, self.kind, what))
        try:
            return plan.read(payload[HEADER_SIZE:])
        except ValueError as error:
            raise DataError(f"{topic}: the payload is no value of its {self.label} schema: {error}") from error

    def _value_id(self, subject: str, text: str) -> int:
        try:
            return self._id(subject, text)
        except IncompatibleSchema as refusal:
            if not self._register:
                raise
            if self.refuses_incompatible:
                raise refused_schema(subject, refusal) from refusal
            # Warned of once: from now on the subject refuses nothing.
            _log.warning(
                "the registry refused a new value schema as incompatible; setting the subject's compatibility to NONE",
                subject=subject,
                reasons=refusal.messages,
            )
            self._client_or_raise().set_compatibility(subject, "NONE")
            return self._id(subject, text)

    def _id(self, subject: str, text: str) -> int:
        registry = self._client_or_raise()
        ask = registry.register if self._register else registry.lookup
        return ask(subject, text, self.kind)

    def _nothing(self, value: object) -> None:
        if value is not None:
            raise DataError(
                f"the {self.label} converter was given a value without schema ({type(value).__name__}). Give the "
                "transform that made it a schema, or use another converter for this connector"
            )

    def _client_or_raise(self) -> TypedRegistry:
        if self._registry is None:
            raise RuntimeError(f"the {self.label} converter is used before configure()")
        return self._registry


_IGNORED: Final = frozenset(
    {
        *("schemas.cache.config", "schemas.cache.size", "max.schemas.per.subject", "schemas.enable"),
        *("latest.compatibility.strict", "normalize.schemas", "ignore.default.for.nullables"),
        *("flatten.singleton.unions", "generalized.sum.type.support"),
    }
)
"""Confluent's properties that make no difference here."""
