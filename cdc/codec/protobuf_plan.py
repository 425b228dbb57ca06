"""Registered Protobuf files compiled: writers and readers of what follows the schema id.

That is the way to the message within its file (zigzag varints: how many, then the index at each depth; a single zero
for the first message), then the message.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from cdc.codec.avro_binary import long_bytes
from cdc.codec.avro_varint import read_long
from cdc.codec.connect_json import parse_schema
from cdc.codec.protobuf_foreign import foreign_reader
from cdc.codec.protobuf_schema import SCHEMA_PARAMETER
from cdc.codec.protobuf_types import FILES, FileProto, file_params
from cdc.codec.protobuf_values import filler, taker
from cdc.errors import DataError
from cdc.record import Schema

__all__ = ["ProtobufFile", "payload_writer"]


@dataclass(frozen=True, slots=True)
class _Message:
    schema: Schema
    make: Callable[[], Any]
    take: Callable[[Any], Any]


class ProtobufFile:
    """A registered file, its text the ``FileDescriptorProto`` in base64. `DataError` when it is none, or imports what
    only its registry knows."""

    def __init__(self, text: str) -> None:
        try:
            file = FileProto()
            file.ParseFromString(base64.b64decode(text, validate=True))
            file.name = file.name or "schema.proto"
            pool = descriptor_pool.DescriptorPool()
            for known in (_OPTIONS, *FILES.values()):
                pool.AddSerializedFile(known.SerializeToString())
            missing = [place for place in file.dependency if place not in FILES and place != _OPTIONS.name]
            if missing:
                raise DataError(f"the Protobuf schema imports {', '.join(missing)}; references are not supported")
            pool.AddSerializedFile(file.SerializeToString())
            self._file = pool.FindFileByName(file.name)
        except (binascii.Error, DecodeError, TypeError, KeyError, ValueError) as error:
            raise DataError(f"cannot read the Protobuf schema {text[:60]!r}: {error}") from error
        self._names = [message.name for message in file.message_type]
        self._written = file_params(file).get(SCHEMA_PARAMETER)
        self._messages: dict[tuple[int, ...], _Message] = {}

    def schema(self) -> Schema:
        """The Connect schema of the first message."""
        return self._message((0,)).schema

    def read(self, data: bytes) -> tuple[Schema, Any]:
        """Schema and value of what follows a schema id. `ValueError` for bytes that are none."""
        try:
            count, at = read_long(data, 0)
            path = []
            for _ in range(count):
                index, at = read_long(data, at)
                path.append(index)
            found = self._message(tuple(path) or (0,))
            message = found.make()
            type(message).ParseFromString(message, data[at:])
        except (IndexError, DecodeError) as error:
            raise ValueError(f"it is no Protobuf message of its schema: {error}") from error
        return found.schema, found.take(message)

    def _message(self, path: tuple[int, ...]) -> _Message:
        found = self._messages.get(path)
        if found is None:
            found = self._messages[path] = self._compile(path)
        return found

    def _compile(self, path: tuple[int, ...]) -> _Message:
        descriptor = self._descriptor(path)
        make = message_factory.GetMessageClass(descriptor)
        if self._written is not None and path == (0,):
            schema = parse_schema(json.loads(self._written))
            return _Message(schema, make, taker(schema))
        schema, take = foreign_reader(descriptor)
        return _Message(schema, make, take)

    def _descriptor(self, path: tuple[int, ...]) -> Any:
        if any(index < 0 for index in path):
            raise IndexError(f"there is no message {path}")
        found = self._file.message_types_by_name[self._names[path[0]]]
        for index in path[1:]:
            found = found.nested_types[index]
        return found

    def writer(self, schema: Schema) -> Callable[[Any], bytes]:
        """The writer of structs of ``schema`` as the file's first message."""
        make, fill = self._message((0,)).make, filler(schema)

        def write(value: Any) -> bytes:
            message = make()
            fill(message, value)
            return _FIRST + bytes(type(message).SerializeToString(message, deterministic=True))

        return write


_FIRST = long_bytes(0)
"""The way to the first message."""
_OPTIONS = FileProto(name="confluent/meta.proto", package="confluent", syntax="proto3")
"""In place of Confluent's options, which say nothing of values."""


def payload_writer(text: str, schema: Schema) -> Callable[[Any], bytes]:
    """The writer of what follows the id of the schema registered as ``text``."""
    return ProtobufFile(text).writer(schema)
