"""Kafka Connect's converters of single values: text, bytes, numbers, booleans.

A change of a row is a struct, and no row could be read back from what these would make of it. They are for records
whose values transforms have made single ones: there they write what Kafka's write.
"""

from __future__ import annotations

import codecs
import struct
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from cdc.codec.connect_rows import row_values
from cdc.codec.java_text import Text, java_text
from cdc.converters.key_schemas import kept_key_schema
from cdc.converters.settings import Setting, read_settings
from cdc.errors import ConfigError, DataError, FatalError, Finding
from cdc.plugin import Converter, Encoder, KeyEncoder, KeyMemory, ValueEncoder
from cdc.record import RowChange, RowShape, Schema

__all__ = [
    "BooleanConverter",
    "ByteArrayConverter",
    "DoubleConverter",
    "FloatConverter",
    "IntegerConverter",
    "LongConverter",
    "ShortConverter",
    "StringConverter",
]


class _ScalarConverter(Converter):
    """What is the same for all of them. ``label`` is what messages call the converter."""

    writes_rows = False
    label: ClassVar[str]
    settings: ClassVar[tuple[Setting, ...]] = ()

    def configure(self, config: Mapping[str, str], *, is_key: bool) -> None:
        self._part = "key" if is_key else "value"
        self._configure(read_settings(self.label, self.settings, config, {"schemas.enable"}))

    def _configure(self, found: Mapping[str, Any]) -> None:
        """Take the values of the settings."""

    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        """`FatalError` for a table with a key: it is a struct."""
        if shape.key_schema is None:
            return lambda _change: None
        return self._row_key_encoder(shape, shape.key_schema, memory)

    def _row_key_encoder(self, shape: RowShape, schema: Schema, memory: KeyMemory) -> KeyEncoder:  # noqa: ARG002
        raise FatalError(
            f"{shape.topic}: the {self.label} converter cannot write the key of table {shape.schema}.{shape.table}, a "
            f"struct of ({', '.join(field.name for field in schema.fields)}). Set key.converter to avro, json, "
            "jsonschema or protobuf, or make the key one value by a transform (ExtractField$Key)"
        )

    def value_encoder(self, shape: RowShape) -> ValueEncoder:
        """`FatalError`: a change of a row is a struct."""
        raise FatalError(
            f"{shape.topic}: the {self.label} converter cannot write rows so that they can be read back. Set "
            "value.converter to avro, json, jsonschema or protobuf, or make the value one of its own by a transform"
        )

    def control_key(self, partition: int) -> bytes:
        # No struct is printed so, and it is no number.
        return b"cdc.ControlKey{partition=%d}" % partition

    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        """As `cdc.plugin.Converter.encoder`. `FatalError` for a schema of another type than this converter's."""
        write = self._writer(topic, schema)

        def encode(value: Any) -> bytes | None:
            if value is None:
                return None
            try:
                return write(value)
            except (ValueError, TypeError, AttributeError, KeyError, struct.error) as error:
                raise DataError(
                    f"{topic}: the {self.label} converter cannot write the {self._part}: {error}"
                ) from error

        return encode

    @abstractmethod
    def _writer(self, topic: str, schema: Schema | None) -> Callable[[Any], bytes]:
        """The encoder of values that are not null."""

    def _require(self, topic: str, schema: Schema | None, type_: str) -> None:
        if schema is not None and schema.type != type_:
            raise FatalError(
                f"{topic}: the {self.label} converter writes {type_} only, and the {self._part} is {schema.type}. "
                f"Set {self._part}.converter to another one"
            )

    def _read(self, topic: str, payload: bytes, read: Callable[[bytes], Any]) -> Any:
        try:
            return read(payload)
        except (ValueError, struct.error) as error:
            raise DataError(f"{topic}: the {self._part} is none of the {self.label} converter's: {error}") from error


_NOT_WHOLE: Final = frozenset({"org.apache.kafka.connect.data.Time", "org.apache.kafka.connect.data.Timestamp"})
"""Java prints them in whole seconds."""
_STRING: Final = Schema("string", optional=True)


def _encoding(name: str) -> str:
    return codecs.lookup(name).name


class StringConverter(_ScalarConverter):
    """``org.apache.kafka.connect.storage.StringConverter``: what Java's ``toString()`` gives.

    A key of one column is written as Kafka does (``Struct{id=1}``); of several it is refused, for two rows could have
    the same text.
    """

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.storage.StringConverter",)
    label = "String"
    tells_types = False
    settings = (Setting("converter.encoding", "UTF-8", "Character encoding of the text."),)

    def _configure(self, found: Mapping[str, Any]) -> None:
        try:
            self._encoding = _encoding(found["converter.encoding"])
        except LookupError:
            raise ConfigError(
                [Finding(f"{found['converter.encoding']!r} is no character encoding", key="converter.encoding")]
            ) from None

    def _row_key_encoder(self, shape: RowShape, schema: Schema, memory: KeyMemory) -> KeyEncoder:
        if len(schema.fields) > 1:
            return super()._row_key_encoder(shape, schema, memory)
        for field in schema.fields:
            if field.schema.name in _NOT_WHOLE or field.schema.type in ("array", "map", "struct"):
                raise FatalError(
                    f"{shape.topic}: the String converter prints the key column {field.name} of table "
                    f"{shape.schema}.{shape.table}, {field.schema.name or field.schema.type}, so that two rows could "
                    "have one text. Set key.converter to avro, json, jsonschema or protobuf"
                )
        kept = kept_key_schema(shape, schema, memory, f"{self._encoding} text", bare=True)
        encode = self.encoder(shape.topic, kept)
        key = row_values(shape, "").key

        def encode_key(change: RowChange) -> bytes | None:
            return encode(key(change))

        return encode_key

    def _writer(self, topic: str, schema: Schema | None) -> Callable[[Any], bytes]:  # noqa: ARG002 - any schema will do
        text: Text = java_text(schema)
        return lambda value: text(value).encode(self._encoding)

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        if payload is None:
            return None, None
        return _STRING, self._read(topic, payload, lambda data: data.decode(self._encoding))


_BYTES: Final = Schema("bytes", optional=True)


class ByteArrayConverter(_ScalarConverter):
    """``org.apache.kafka.connect.converters.ByteArrayConverter``: bytes as they are."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.ByteArrayConverter",)
    label = "ByteArray"

    def _writer(self, topic: str, schema: Schema | None) -> Callable[[Any], bytes]:
        self._require(topic, schema, "bytes")

        def write(value: Any) -> bytes:
            if not isinstance(value, bytes):
                raise TypeError(f"{type(value).__name__} is not bytes")
            return value

        return write

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:  # noqa: ARG002 - any will do
        return (None, None) if payload is None else (_BYTES, payload)


class _PackedConverter(_ScalarConverter):
    """A number or boolean of fixed size, in network byte order."""

    _packed: ClassVar[struct.Struct]
    _schema: ClassVar[Schema]

    def _writer(self, topic: str, schema: Schema | None) -> Callable[[Any], bytes]:
        self._require(topic, schema, self._schema.type)
        return self._packed.pack

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        if payload is None:
            return None, None
        return self._schema, self._read(topic, payload, lambda data: self._packed.unpack(data)[0])


class ShortConverter(_PackedConverter):
    """``org.apache.kafka.connect.converters.ShortConverter``."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.ShortConverter",)
    label = "Short"
    _packed, _schema = struct.Struct(">h"), Schema("int16", optional=True)


class IntegerConverter(_PackedConverter):
    """``org.apache.kafka.connect.converters.IntegerConverter``."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.IntegerConverter",)
    label = "Integer"
    _packed, _schema = struct.Struct(">i"), Schema("int32", optional=True)


class LongConverter(_PackedConverter):
    """``org.apache.kafka.connect.converters.LongConverter``."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.LongConverter",)
    label = "Long"
    _packed, _schema = struct.Struct(">q"), Schema("int64", optional=True)


class FloatConverter(_PackedConverter):
    """``org.apache.kafka.connect.converters.FloatConverter``."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.FloatConverter",)
    label = "Float"
    _packed, _schema = struct.Struct(">f"), Schema("float32", optional=True)


class DoubleConverter(_PackedConverter):
    """``org.apache.kafka.connect.converters.DoubleConverter``."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.DoubleConverter",)
    label = "Double"
    _packed, _schema = struct.Struct(">d"), Schema("float64", optional=True)


class BooleanConverter(_PackedConverter):
    """``org.apache.kafka.connect.converters.BooleanConverter``."""

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.converters.BooleanConverter",)
    label = "Boolean"
    _packed, _schema = struct.Struct(">?"), Schema("boolean", optional=True)

    def _writer(self, topic: str, schema: Schema | None) -> Callable[[Any], bytes]:
        pack = super()._writer(topic, schema)

        def write(value: Any) -> bytes:
            if not isinstance(value, bool):
                raise TypeError(f"{type(value).__name__} is no boolean")
            return pack(value)

        return write

    def _read(self, topic: str, payload: bytes, read: Callable[[bytes], Any]) -> Any:
        if payload not in (b"\x00", b"\x01"):
            raise DataError(f"{topic}: the {self._part} is none of the Boolean converter's: {payload[:20]!r}")
        return super()._read(topic, payload, read)
