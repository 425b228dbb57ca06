"""From native values under Connect schemas to the fields of a hash: the general lane beside `cdc.codec.avro_fields`.

Plans have the same form. What they decode is a `Decoded`, which a converter has read already, in place of Avro.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cdc.codec.avro_fields import FOREIGN, FieldsPlan, KeyPlan, Row
from cdc.codec.avro_schema import Text
from cdc.codec.connect_text import FAULTS, ColumnText, column_text
from cdc.codec.flattened import DELETES, METADATA
from cdc.codec.told_schema import image_schema, plain_column, printed_column
from cdc.errors import DataError, brief
from cdc.record import Schema

__all__ = [
    "Decoded",
    "fields_plan",
    "foreign_plan",
    "key_plan",
    "plain_fields_plan",
    "plain_foreign",
    "plain_image",
    "plain_key_plan",
]


class Decoded(bytes):
    """A payload together with what a converter read from it.

    Its first five bytes stand for its schema, as they do in Confluent's wire format, so that plans are looked up by
    them; the payload's own bytes follow.
    """

    native: Any

    @classmethod
    def made(cls, token: bytes, payload: bytes, native: Any) -> Decoded:
        decoded = cls(token + payload)
        decoded.native = native
        return decoded


Native = Callable[[Any], "tuple[list[bytes] | None, Any]"]


def _plan(decode: Native, columns: Sequence[bytes], kinds: Mapping[bytes, str]) -> FieldsPlan:
    def of_payload(payload: bytes, _at: int) -> tuple[list[bytes] | None, Any]:
        return decode(_native(payload))

    return FieldsPlan(of_payload, tuple(columns), kinds)


def _native(payload: bytes) -> Any:
    if not isinstance(payload, Decoded):
        raise TypeError("a plan of the general lane was given a payload that no converter has read")
    return payload.native


def foreign_plan() -> FieldsPlan:
    """Of records that are not about rows."""
    return FieldsPlan(lambda _payload, _at: (None, b"m"), (), {}, mirrored=False)


# --- with schema -----------------------------------------------------------------------------------------


def fields_plan(schema: Schema, metadata: re.Pattern[str] = METADATA) -> FieldsPlan:
    """The plan of values: an envelope of Debezium's, or a struct of columns, in which fields whose names match
    ``metadata`` are none. `DataError` for a schema that is neither."""
    if schema.type != "struct":
        raise DataError(f"a value of type {schema.type} has no columns; only structs can become hashes")
    if (schema.name or "").startswith(FOREIGN):
        return foreign_plan()
    image = image_schema(schema)
    if image is not schema:
        decode_row, columns, kinds = _row(image, None)
        return _plan(lambda value: _envelope(value, decode_row), columns, kinds)
    decode_row, columns, kinds = _row(schema, metadata)
    marks = [name for name in DELETES if name in _names(schema) and metadata.fullmatch(name)]
    return _plan(_undeleted(decode_row, marks) if marks else decode_row, columns, kinds)


def _names(schema: Schema) -> list[str]:
    return [field.name for field in schema.fields]


def _envelope(value: Any, decode_row: Native) -> tuple[list[bytes] | None, Any]:
    after = _of_struct(value, "after")
    if after is not None:
        return decode_row(after)
    operation = _of_struct(value, "op")
    return None, b"" if operation is None else str(operation).encode()


def _of_struct(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise DataError(f"a struct is expected, found {brief(value)}")
    return value.get(name)


def _undeleted(decode_row: Native, marks: Sequence[str]) -> Native:
    """The rows of ``ExtractNewRecordState`` that are not those of a delete."""

    def decode(value: Any) -> tuple[list[bytes] | None, Any]:
        return (None, b"d") if _deleted(value, marks) else decode_row(value)

    return decode


def _deleted(row: Any, marks: Sequence[str]) -> bool:
    return any(_of_struct(row, mark) in DELETES[mark] for mark in marks)


def _row(schema: Schema, metadata: re.Pattern[str] | None) -> tuple[Native, list[bytes], dict[bytes, str]]:
    columns: list[tuple[str, bytes, Text]] = []
    kinds: dict[bytes, str] = {}
    for field in schema.fields:
        if metadata is None or not metadata.fullmatch(field.name):
            name = field.name.encode()
            kinds[name], text = column_text(field.schema)
            columns.append((field.name, name, text))

    def decode(value: Any) -> Row:
        fields: list[bytes] = []
        nulls: list[bytes] = []
        for key, name, text in columns:
            part = _of_struct(value, key)
            if part is None:
                nulls.append(name)
            else:
                fields += (name, _checked(text, part, key))
        return fields, tuple(nulls)

    return decode, list(kinds), kinds


def _checked(text: Text, value: Any, name: str) -> bytes:
    try:
        return text(value)
    except FAULTS as error:
        raise DataError(f"the value of {name!r} is not one of its schema's: {error}") from error


def key_plan(schema: Schema) -> KeyPlan:
    """The plan of keys: a struct of key columns, or a single value."""
    if schema.type == "struct":
        names = _names(schema)
        texts = [column_text(field.schema) for field in schema.fields]
        parts = list(zip(names, (text for _, text in texts), strict=True))

        def columns(payload: bytes, _at: int) -> tuple[bytes | None, ...]:
            value = _native(payload)
            return tuple(_key_part(_of_struct(value, name), text, name) for name, text in parts)

        return KeyPlan(columns, tuple(names), tuple(kind for kind, _ in texts))
    kind, text = column_text(schema)
    return KeyPlan(lambda payload, _at: (_key_part(_native(payload), text, "key"),), (), (kind,))


def _key_part(value: Any, text: Text, name: str) -> bytes | None:
    return None if value is None else _checked(text, value, name)


# --- without schema --------------------------------------------------------------------------------------

_OPERATIONS: Final = frozenset("curdtm")
_FOREIGN_NAMES: Final = (
    frozenset({"status", "id", "event_count", "data_collections", "ts_ms"}),  # of transactions' boundaries
    frozenset({"id", "aggregate_type", "type", "additional_data", "timestamp"}),  # notifications
)
_NOTHING: Final[Mapping[str, Schema]] = {}
_HEARTBEATS: Final = (frozenset({"ts_ms"}), frozenset({"ts_ms", "ts_us", "ts_ns"}))


def plain_image(value: Any) -> Mapping[str, Any] | None:
    """The row that a value without schema has, if any. `DataError` for what is no JSON object."""
    if not isinstance(value, Mapping):
        raise DataError(f"a value without schema must be a JSON object to have columns, found {brief(value)}")
    if not _is_envelope(value):
        return value
    after: Mapping[str, Any] | None = value["after"]
    return after


def plain_foreign(value: Any, key_columns: Callable[[], Sequence[str]]) -> bool:
    """Whether a value without schema is one of Debezium's that is not about rows. The key is asked for if in doubt."""
    if not isinstance(value, Mapping):
        return False
    names = value.keys()
    if names in _HEARTBEATS:
        return tuple(key_columns()) == ("serverName",)
    if names in _FOREIGN_NAMES:
        return True
    if value.get("op") == "m" and "message" in names and "source" in names:
        return True
    return {"source", "databaseName", "schemaName", "ddl", "tableChanges"} <= names


def _is_envelope(value: Mapping[str, Any]) -> bool:
    operation = value.get("op")
    if not ("before" in value and "after" in value and isinstance(operation, str) and operation in _OPERATIONS):
        return False
    return all(value[name] is None or isinstance(value[name], Mapping) for name in ("before", "after"))


def plain_fields_plan(columns: Mapping[str, bytes | None], told: Mapping[str, Schema] = _NOTHING) -> FieldsPlan:
    """The plan of values without schema, all of them envelopes or all flattened, whose rows have no other names than
    ``columns``; ``None`` marks those that are no columns but a flattened row's metadata. A column that a row does not
    name is NULL. ``told`` has the schemas of columns that a header tells of."""
    texts = {name: plain_column(told.get(name)) for name, encoded in columns.items() if encoded is not None}
    known = [(name, name.encode(), texts[name].text) for name in texts]
    marks = [name for name in DELETES if name in columns and columns[name] is None]

    def decode(value: Any) -> tuple[list[bytes] | None, Any]:
        row = plain_image(value)
        if row is None:
            return None, value["op"].encode()
        if marks and _deleted(row, marks):
            return None, b"d"
        fields: list[bytes] = []
        nulls: list[bytes] = []
        for name, encoded, text in known:
            part = row.get(name)
            if part is None:
                nulls.append(encoded)
            else:
                fields += (encoded, _checked(text, part, name))
        return fields, tuple(nulls)

    return _plan(decode, [encoded for _, encoded, _ in known], {name.encode(): texts[name].kind for name in texts})


def plain_key_plan(
    names: Sequence[str] | None, told: Mapping[str, Schema] = _NOTHING, *, printed: bool = False
) -> KeyPlan:
    """The plan of keys without schema: of JSON objects with these names, or (``None``) of single values. ``told`` has
    the schemas that a header tells of, the one of a single value by the name ""; ``printed`` if the values are text
    that Java printed."""
    column: Callable[[Schema | None], ColumnText] = printed_column if printed else plain_column
    if names is None:
        kind, text = column(told.get(""))
        return KeyPlan(lambda payload, _at: (_key_part(_native(payload), text, "key"),), (), (kind,))
    parts = [(name, *column(told.get(name))) for name in names]

    def columns(payload: bytes, _at: int) -> tuple[bytes | None, ...]:
        value = _native(payload)
        return tuple(_key_part(value[name], text, name) for name, _, text in parts)

    return KeyPlan(columns, tuple(names), tuple(kind for _, kind, _ in parts))
