"""The general lane: records whose keys or values a converter reads, in front of the assembler.

Avro in Confluent's wire format has plans compiled from its writer schemas (`cdc.codec.avro_fields`) and does not come
here. What any other converter reads becomes a `Decoded`, whose first five bytes are a number given to its schema, and
is decoded by a plan made from that schema; so the assembler has one loop for both.

Records are converted when the assembler asks for their value or key: there, what a converter raises is the record's
fault, or is waited for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from cdc.codec.avro_fields import FieldsPlan, KeyPlan
from cdc.codec.connect_fields import (
    Decoded,
    fields_plan,
    foreign_plan,
    key_plan,
    plain_fields_plan,
    plain_foreign,
    plain_image,
    plain_key_plan,
)
from cdc.codec.flattened import METADATA
from cdc.codec.told_schema import NOTHING_TOLD, Told, parse_told
from cdc.errors import DataError
from cdc.mirror.partitions import Message
from cdc.mirror.plans import Reader
from cdc.record import HEADER_SCHEMA, Schema

__all__ = ["Convert", "GeneralLane"]

Convert = Callable[[str, bytes], "tuple[Schema | None, Any]"]
"""A converter's reading side: topic and payload to schema and native value. `DataError` for a payload that is not its
own; `RetriableError` when the registry is away."""

_MOST_SEEN: Final = 4096
"""Schema objects that are known by their identity; and headers that tell of columns."""
_MOST_NAMES: Final = 5000
"""Of a topic's rows without schema. A table of Postgres has 1600 columns at most."""


class GeneralLane:
    """Reads keys, values or both by converters; ``None`` leaves that side to ``reader``, which reads bytes.

    Is the assembler's `Reader`, and `routed` is what its messages must have gone through.
    """

    def __init__(
        self, reader: Reader, key: Convert | None, value: Convert | None, metadata: re.Pattern[str] = METADATA
    ) -> None:
        self._reader = reader
        self._key = key
        self._value = value
        self._schemas = _Schemas()
        self._headers = _Headers()
        self._keys = _Keys(self._schemas, self._headers)
        self._values = _Values(self._schemas, self._headers, metadata)

    def routed(self, messages: Sequence[Any]) -> list[Any]:
        """The messages, with keys and values that are converted when they are asked for."""
        return [_Routed(message, self) for message in messages]

    def fields(self, payload: bytes, /) -> FieldsPlan:
        return self._values.plan(payload) if isinstance(payload, Decoded) else self._reader.fields(payload)

    def key(self, payload: bytes, /) -> KeyPlan:
        return self._keys.plan(payload) if isinstance(payload, Decoded) else self._reader.key(payload)

    def converted_key(self, message: Message) -> bytes | None:
        payload: bytes | None = message.key()
        if payload is None or self._key is None:
            return payload
        schema, native = self._key(message.topic(), payload)
        if native is None:
            return None
        return self._keys.decoded(payload, schema, native, self._header(message, schema))

    def converted_value(self, message: Message) -> bytes | None:
        payload: bytes | None = message.value()
        if payload is None or self._value is None:
            return payload
        topic = message.topic()
        schema, native = self._value(topic, payload)
        if native is None:
            return None
        if schema is None and plain_foreign(native, partial(self._key_columns, message)):
            return Decoded.made(_FOREIGN, payload, native)
        return self._values.decoded(topic, payload, schema, native, self._header(message, schema))

    def _header(self, message: Message, schema: Schema | None) -> bytes:
        """What tells more of a payload than its schema; empty if nothing does."""
        return self._headers.of(message) if schema is None or schema.type == "string" else b""

    def _key_columns(self, message: Message) -> Sequence[str]:
        key = self.converted_key(message)
        return () if key is None else self.key(key).columns


class _Routed:
    """A message that is converted once, when its value or key is asked for."""

    __slots__ = ("_key", "_lane", "_value", "headers", "offset", "original", "partition", "timestamp", "topic")

    def __init__(self, message: Message, lane: GeneralLane) -> None:
        self.original = message
        self._lane = lane
        self.topic = message.topic
        self.partition = message.partition
        self.offset = message.offset
        self.headers = message.headers
        self.timestamp = message.timestamp
        self._key: Any = _ASK
        self._value: Any = _ASK

    def key(self) -> bytes | None:
        if self._key is _ASK:
            self._key = self._lane.converted_key(self.original)
        key: bytes | None = self._key
        return key

    def value(self) -> bytes | None:
        if self._value is _ASK:
            self._value = self._lane.converted_value(self.original)
        value: bytes | None = self._value
        return value


_ASK: Final = object()


class _Schemas:
    """Numbers for schemas, as the five bytes that begin a payload. Never given twice."""

    def __init__(self) -> None:
        self._next = 0
        self._seen: dict[int, tuple[Schema, bytes]] = {}
        self._known: dict[str, bytes] = {}

    def new(self) -> bytes:
        self._next += 1
        return b"\0" + self._next.to_bytes(4, "big")

    def of(self, schema: Schema) -> bytes:
        """The number of a schema. Fast for the same object, and the same for an equal one."""
        seen = self._seen.get(id(schema))
        if seen is not None:
            return seen[1]
        token = self._known.setdefault(repr(schema), b"") or self.new()
        self._known[repr(schema)] = token
        if len(self._seen) >= _MOST_SEEN:  # a converter that makes its schemas anew
            self._seen.clear()
        self._seen[id(schema)] = (schema, token)
        return token


class _Headers:
    """What headers tell of payloads without schema."""

    def __init__(self) -> None:
        self._told: dict[bytes, Told] = {b"": NOTHING_TOLD}

    def of(self, message: Message) -> bytes:
        """The header of a record that tells of its columns; empty if it has none. `DataError` for one that cannot be
        read."""
        header = next((value for name, value in message.headers() or () if name == HEADER_SCHEMA), None) or b""
        if header not in self._told:
            if len(self._told) >= _MOST_SEEN:
                raise DataError(
                    f"there have been {_MOST_SEEN} different headers {HEADER_SCHEMA} by now, as if each record had one "
                    "of its own: no source of this program writes so"
                )
            self._told[header] = parse_told(header)
        return header

    def told(self, header: bytes) -> Told:
        return self._told[header]


_FOREIGN: Final = b"\0\0\0\0\0"


_PRINTED_STRUCT: Final = re.compile(r"Struct\{([^=,{}]+)=(.*)\}", re.DOTALL)
"""What Kafka's String converter makes of a key of one column."""


class _Keys:
    """Keys and their plans."""

    def __init__(self, schemas: _Schemas, headers: _Headers) -> None:
        self._schemas = schemas
        self._headers = headers
        self._plain: dict[tuple[tuple[str, ...] | None, bytes, bool], bytes] = {}
        self._plans: dict[bytes, KeyPlan] = {}

    def plan(self, payload: bytes) -> KeyPlan:
        return self._plans[payload[:5]]

    def decoded(self, payload: bytes, schema: Schema | None, native: Any, header: bytes) -> Decoded:
        if isinstance(native, str) and (printed := _PRINTED_STRUCT.fullmatch(native)) is not None:
            return self._without_schema(payload, {printed[1]: printed[2]}, header, printed=True)
        if schema is None or (header and "" in self._headers.told(header).key):
            return self._without_schema(payload, native, header, printed=schema is not None)
        token = self._schemas.of(schema)
        if token not in self._plans:
            self._plans[token] = key_plan(schema)
        return Decoded.made(token, payload, native)

    def _without_schema(self, payload: bytes, native: Any, header: bytes, *, printed: bool) -> Decoded:
        names = tuple(native) if isinstance(native, Mapping) else None
        known = self._plain.get((names, header, printed))
        if known is None:
            plan = plain_key_plan(names, self._headers.told(header).key, printed=printed)
            known = self._plain[names, header, printed] = self._schemas.new()
            self._plans[known] = plan
        return Decoded.made(known, payload, native)


class _Values:
    """Values and their plans."""

    def __init__(self, schemas: _Schemas, headers: _Headers, metadata: re.Pattern[str]) -> None:
        self._schemas = schemas
        self._headers = headers
        self._metadata = metadata
        self._tables: dict[tuple[str, bool, bytes], _Columns] = {}
        self._plans: dict[bytes, FieldsPlan] = {_FOREIGN: foreign_plan()}

    def plan(self, payload: bytes) -> FieldsPlan:
        return self._plans[payload[:5]]

    def decoded(self, topic: str, payload: bytes, schema: Schema | None, native: Any, header: bytes) -> Decoded:
        if schema is not None:
            token = self._schemas.of(schema)
            if token not in self._plans:
                self._plans[token] = fields_plan(schema, self._metadata)
            return Decoded.made(token, payload, native)
        row = plain_image(native)
        kind = (topic, row is native, header)
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _Columns()
        names = set() if row is None else set(row)
        if not table.token or not table.names.keys() >= names:
            if len(table.names.keys() | names) > _MOST_NAMES:
                raise DataError(
                    f"the values of topic {topic} have had more than {_MOST_NAMES} different field names by now, so "
                    "they are no rows of a table. Give them a schema, or do not mirror the topic"
                )
            for name in names:
                if name not in table.names:
                    hidden = row is native and self._metadata.fullmatch(name)
                    table.names[name] = None if hidden else name.encode()
            plan = plain_fields_plan(dict(table.names), self._headers.told(header).value)
            table.token = self._schemas.new()
            self._plans[table.token] = plan
        return Decoded.made(table.token, payload, native)


class _Columns:
    """The names that rows without schema of a topic have had. More of them make another schema."""

    __slots__ = ("names", "token")

    def __init__(self) -> None:
        self.names: dict[str, bytes | None] = {}
        self.token = b""
