"""Confluent's Avro converter: schemas registered and fetched, encoders compiled (`cdc.codec.avro_rows`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar, Final, Protocol

import structlog

from cdc.codec.avro_binary import long_bytes, writer
from cdc.codec.avro_connect import AvroPlan, avro_plan
from cdc.codec.avro_fields import KeyPlan
from cdc.codec.avro_fields import compile_key as key_plan
from cdc.codec.avro_rows import compile_key, compile_value
from cdc.codec.connect_avro import LogicalTypes, avro_text
from cdc.converters.avro_keys import START_ANEW, as_remembered, key_changes, wiped
from cdc.converters.avro_reader import HEADER_SIZE, writer_schema
from cdc.converters.key_schemas import other_format
from cdc.converters.refusals import refused_schema
from cdc.errors import ConfigError, DataError, FatalError, Finding, KeyChanged, TableError
from cdc.plugin import Converter, Encoder, KeyEncoder, KeyMemory, ValueEncoder
from cdc.record import RawRow, RowChange, RowShape, Schema, Transaction
from cdc.registry.client import RegistryClient
from cdc.registry.errors import IncompatibleSchema

__all__ = ["CONTROL_SCHEMA", "CONTROL_SUBJECT", "AvroConverter", "Registry"]

CONTROL_SUBJECT: Final = "cdc.control-key"
"""Subject of the schema of control keys."""
CONTROL_SCHEMA: Final = (
    '{"type":"record","name":"ControlKey","namespace":"cdc","fields":[{"name":"partition","type":"int"}]}'
)
"""The schema of control keys, as in ``schemas/control-key.avsc`` but for its comments."""

_NO_TRANSACTION: Final = Transaction(0, 0, 0, None, None)
_log = structlog.get_logger(__name__)


class Registry(Protocol):
    """The part of `cdc.registry.client.RegistryClient` that this converter needs."""

    def register(self, subject: str, schema_json: str, /) -> int: ...

    def lookup(self, subject: str, schema_json: str, /) -> int: ...

    def latest(self, subject: str, /) -> tuple[int, str] | None: ...

    def schema(self, schema_id: int, /) -> tuple[str, str]: ...

    def set_compatibility(self, subject: str, level: str, /) -> None: ...

    def close(self) -> None: ...


_BOOLEANS: Final = {"true": True, "false": False}
_LOGICAL_TYPES: Final[dict[str, LogicalTypes]] = {"true": True, "false": False, "connect": "connect"}
_TOPIC_NAMES: Final = frozenset(
    {"TopicNameStrategy", "io.confluent.kafka.serializers.subject.TopicNameStrategy"},
)
_FIXED: Final = {
    "use.latest.version": ("false", "schemas are made from the tables"),
    "scrub.invalid.names": ("false", "names are kept, or refused"),
    "connect.meta.data": ("true", "connect.* attributes are what Connect's consumers read types from"),
    "allow.optional.map.keys": ("false", "maps with optional keys are arrays of entries"),
    "generalized.sum.type.support": ("false", "unions are of null and one type"),
}
"""Confluent's properties that have one value here, and why."""
_IGNORED: Final = frozenset(
    {
        "enhanced.avro.schema.support",  # enums are strings with Debezium's name
        "ignore.default.for.nullables",  # a NULL is a NULL, always
        "schemas.cache.config",
        "schemas.cache.size",
        "max.schemas.per.subject",
        "schemas.enable",  # of JSON converters, often left behind
        "latest.compatibility.strict",
        "normalize.schemas",
        "discard.type.doc.default",
        "flatten.unions",
        "flatten.singleton.unions",
    }
)
"""Confluent's properties that make no difference to what this converter writes."""
_OWN: Final = frozenset(
    {"auto.register.schemas", "avro.logical.types", "key.subject.name.strategy", "value.subject.name.strategy"}
)
_REGISTRY: Final = ("schema.registry.", "basic.auth.", "bearer.auth.", "ssl.", "proxy.", "http.")
_NAME: Final = re.compile(r"[^\W\d]\w*")
"""As Avro's Java library has it, letters of any script; a stricter registry refuses them by itself."""


class AvroConverter(Converter):
    """Writes Confluent's wire format: ``00``, schema id, Avro. Subjects are ``<topic>-key`` and ``<topic>-value``.

    Properties, beside those of the registry client (``schema.registry.url``, ``basic.auth.*``, …):

    ``auto.register.schemas`` (true): register schemas; with false they must be there.

    ``avro.logical.types`` (connect): Avro's own logical types beside Debezium's names, but ``date`` and
    ``time-millis``, which Confluent's converter refuses there: so Connect's sinks read the topics too. ``true``: all.
    ``false``: schemas are to the byte what Confluent's converter registers for Debezium.

    A value schema that the registry refuses as incompatible is the mirror's to write all the same: the subject's
    compatibility becomes NONE, with a warning. A key schema never changes (`cdc.converters.avro_keys`).
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.confluent.connect.avro.AvroConverter",)

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._register = True
        self._logical_types: LogicalTypes = True
        self._version = version("cdc")
        self._control_id: int | None = None
        self._is_key = False
        self._plans: dict[bytes, AvroPlan] = {}
        self._key_plans: dict[str, tuple[int, KeyPlan, KeyEncoder]] = {}

    def configure(self, config: Mapping[str, str], *, is_key: bool) -> None:
        self._is_key = is_key
        findings = _findings(config)
        url = config.get("schema.registry.url", "")
        if not url:
            findings.append(
                Finding(
                    "the Avro converter needs a schema registry",
                    key="schema.registry.url",
                    remedy="Set schema.registry.url to its address, or to embedded for the worker's own",
                )
            )
        if findings:
            raise ConfigError(findings)
        self._register = _BOOLEANS[config.get("auto.register.schemas", "true")]
        self._logical_types = _LOGICAL_TYPES[config.get("avro.logical.types", "connect")]
        self._registry = self._client(url, {key: value for key, value in config.items() if key.startswith(_REGISTRY)})

    def _client(self, url: str, config: Mapping[str, str]) -> Registry:
        return RegistryClient(url, config)

    def close(self) -> None:
        """Close the connections to the registry. Encoders made before go on working."""
        if self._registry is not None:
            self._registry.close()

    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        """The encoder of keys, after the key schema that ``memory`` has, or that is made and remembered now.

        `KeyChanged` when names or types of the key changed, `FatalError` when the registry lost the schema.
        """
        schema = shape.key_schema
        if schema is None:
            return compile_key(shape, 0)
        if self._control_id is None:
            self._control_id = self._control()
        subject, text = f"{shape.topic}-key", self._text(shape, schema)
        known = memory.get(shape.topic)
        if known is None:
            number, remembered = self._first(shape, subject, text)
            memory.put(shape.topic, {"id": number, "schema": remembered})
            return self._key(shape, number, as_remembered(schema, remembered), remembered)
        if "anew" in known:
            number, remembered = self._anew(subject, text)
            memory.put(shape.topic, {"id": number, "schema": remembered})
            return self._key(shape, number, as_remembered(schema, remembered), remembered)
        if "schema" not in known:
            raise other_format(shape, str(known.get("form")), "Avro")
        number, remembered = int(known["id"]), str(known["schema"])
        changes = key_changes(remembered, text)
        if changes:
            raise KeyChanged(
                f"{shape.topic}: the key of table {shape.schema}.{shape.table} has changed: {'; '.join(changes)}. "
                "Its rows would get new keys beside those they have in the topic. Change the key back; or set "
                "schema.key.change.handling.mode=renew, which deletes every key of the topic and reads the table "
                f"again; or {START_ANEW}; or leave the table out (table.exclude.list)"
            )
        try:
            found = self._id(subject, remembered)
        except IncompatibleSchema as refusal:
            raise wiped(shape.topic, subject, number, f"refuses it: {refusal}") from refusal
        if found != number:
            raise wiped(shape.topic, subject, number, f"gives id {found}")
        return self._key(shape, number, as_remembered(schema, remembered), remembered)

    def _key(self, shape: RowShape, number: int, schema: Schema, text: str) -> KeyEncoder:
        encode = compile_key(shape, number, schema)
        self._key_plans[shape.topic] = number, key_plan(text), encode
        return encode

    def key_row(self, shape: RowShape, key: bytes) -> RawRow | None:
        """As `cdc.plugin.Converter.key_row`: told only if the row found would get these very bytes."""
        number, plan, encode = self._key_plans.get(shape.topic, (0, None, None))
        if plan is None or encode is None or key[:5] != b"\x00" + number.to_bytes(4, "big"):
            return None
        try:
            values = dict(zip(plan.columns, plan.decode(key, 5), strict=True))
            row: RawRow = [values.get(column.name) for column in shape.columns]
            same = encode(RowChange(shape, "", row, None, None, _NO_TRANSACTION, 0, 0, 0)) == key
        except DataError:
            return None  # of a type whose text is not Postgres's, or of columns that the table has no more
        return row if same else None

    def renew_keys(self, topic: str, memory: KeyMemory) -> None:
        super().renew_keys(topic, memory)
        self._key_plans.pop(topic, None)

    def _anew(self, subject: str, text: str) -> tuple[int, str]:
        """Id and text for the first key after all keys of a topic were deleted."""
        try:
            return self._id(subject, text), text
        except IncompatibleSchema:
            self._client_or_raise().set_compatibility(subject, "NONE")
            return self._id(subject, text), text

    def _first(self, shape: RowShape, subject: str, text: str) -> tuple[int, str]:
        """Id and text for a key that nothing is remembered of: what the subject has, if it is the same key.

        So topics that Debezium wrote, and connectors that lost their offsets, keep their keys.
        """
        latest = self._client_or_raise().latest(subject)
        if latest is not None and not key_changes(latest[1], text):
            return latest
        try:
            return self._id(subject, text), text
        except IncompatibleSchema as refusal:
            differs = "; ".join(key_changes(latest[1], text)) if latest else str(refusal)
            raise FatalError(
                f"{shape.topic}: the subject {subject} has the schema of another key than table {shape.schema}."
                f"{shape.table} has: {differs}. If the topic is new, delete the subject; if it holds records, "
                f"{START_ANEW}"
            ) from refusal

    def control_key(self, partition: int) -> bytes:
        if self._control_id is None:  # no key was encoded yet, or the schema was not registered then
            self._control_id = self._control()
        if self._control_id is None:
            raise FatalError(
                "a record about a whole partition needs a key, and the schema of such keys is not registered. Register "
                f"{CONTROL_SCHEMA} under the subject {CONTROL_SUBJECT} and restart the connector, or set "
                "key.converter.auto.register.schemas=true"
            )
        return b"\x00" + self._control_id.to_bytes(4, "big") + long_bytes(partition)

    def value_encoder(self, shape: RowShape) -> ValueEncoder:
        number = self._value_id(f"{shape.topic}-value", self._text(shape, shape.envelope_schema))
        return compile_value(shape, number, self._version)

    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        """As `cdc.plugin.Converter.encoder`. Without a schema only null can be written."""
        if schema is None:
            return _nothing
        text = avro_text(schema, logical_types=self._logical_types)
        number = self._id(f"{topic}-key", text) if self._is_key else self._value_id(f"{topic}-value", text)
        head, write = b"\x00" + number.to_bytes(4, "big"), writer(schema)
        return lambda value: None if value is None else head + write(value)

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:  # noqa: ARG002 - the id says it
        """As `cdc.plugin.Converter.to_connect`. Every schema id is compiled once (`cdc.codec.avro_connect`)."""
        if payload is None:
            return None, None
        header = payload[:HEADER_SIZE]
        plan = self._plans.get(header)
        if plan is None:
            text = writer_schema(self._client_or_raise(), header, "AVRO", "key" if self._is_key else "value")
            plan = self._plans[header] = avro_plan(text)
        return plan.schema, plan.read(payload, HEADER_SIZE)

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

    def _text(self, shape: RowShape, schema: Schema) -> str:
        _require_names(shape)
        return avro_text(schema, logical_types=self._logical_types)

    def _id(self, subject: str, text: str) -> int:
        registry = self._client_or_raise()
        return registry.register(subject, text) if self._register else registry.lookup(subject, text)

    def _control(self) -> int | None:
        try:
            return self._id(CONTROL_SUBJECT, CONTROL_SCHEMA)
        except FatalError:
            if self._register:
                raise
            return None  # needed by a truncate only: `control_key` says so when one comes

    def _client_or_raise(self) -> Registry:
        if self._registry is None:
            raise RuntimeError("the Avro converter is used before configure()")
        return self._registry


def _nothing(value: object) -> None:
    if value is not None:
        raise DataError(
            f"the Avro converter was given a value without schema ({type(value).__name__}). Give the transform that "
            "made it a schema, or use another converter for this connector"
        )


def _require_names(shape: RowShape) -> None:
    bad = [column.name for column in shape.columns if not _NAME.fullmatch(column.name)]
    if bad:
        names = ", ".join(map(repr, bad))
        raise TableError(
            f"table {shape.schema}.{shape.table} cannot be written as Avro: of its columns, {names} are no Avro names "
            "(letters, digits and _, no digit first). Rename them, or leave the table out (table.exclude.list)"
        )


def _findings(config: Mapping[str, str]) -> list[Finding]:
    findings = []
    for key, value in config.items():
        if key in _FIXED:
            allowed, why = _FIXED[key]
            if value != allowed:
                findings.append(Finding(f"only {allowed} is supported: {why}", key=key, remedy="Remove the property"))
        elif key in {"key.subject.name.strategy", "value.subject.name.strategy"}:
            if value not in _TOPIC_NAMES:
                findings.append(Finding("only TopicNameStrategy is supported", key=key, remedy="Remove the property"))
        elif key == "auto.register.schemas" and value not in _BOOLEANS:
            findings.append(Finding(f"expected true or false, found {value!r}", key=key))
        elif key == "avro.logical.types" and value not in _LOGICAL_TYPES:
            findings.append(Finding(f"expected true, false or connect, found {value!r}", key=key))
        elif not (key in _IGNORED or key in _OWN or key.startswith(_REGISTRY)):
            near = difflib.get_close_matches(key, [*_OWN, *_FIXED, *_IGNORED, "schema.registry.url"], n=1)
            remedy = f"Did you mean {near[0]}?" if near else "Remove it"
            findings.append(Finding("the Avro converter has no such property", key=key, remedy=remedy))
    return findings
