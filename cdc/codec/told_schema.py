"""The header ``cdc.schema``: what bytes of a converter without schemas do not say of their columns.

JSON has texts and numbers; that a text is a decimal in base64, or a number the days of a date, only the schema tells.
The header has it for the columns that need it, and no more, in the form of Kafka Connect's JSON converter:
``{"key": {"type":"struct","fields":[…]}, "value": …}``. Whoever does not know it reads what the bytes say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from cdc.codec.avro_schema import scalar_meaning
from cdc.codec.canonical_values import same_text
from cdc.codec.connect_json import parse_schema, schema_text
from cdc.codec.connect_text import ColumnText, column_text, plain_text
from cdc.codec.java_text import date_of
from cdc.codec.json_reader import load, reader
from cdc.errors import DataError, brief
from cdc.record import HEADER_SCHEMA, NO_DEFAULT, Field, Schema

__all__ = ["NOTHING_TOLD", "Told", "image_schema", "parse_told", "plain_column", "printed_column", "told"]

_WHOLE: Final = frozenset({"int8", "int16", "int32", "int64"})
_SAME_IN_JSON: Final = _WHOLE | {"string", "boolean"}
_DATE: Final = "org.apache.kafka.connect.data.Date"


@dataclass(frozen=True, slots=True)
class Told:
    """What a header says: schemas of columns by name, or, with the name "", of a single value."""

    key: Mapping[str, Schema] = field(default_factory=dict)
    value: Mapping[str, Schema] = field(default_factory=dict)


NOTHING_TOLD: Final = Told()


def told(key: Schema | None, value: Schema | None) -> bytes | None:
    """The header of records of these schemas, where their converters write none; ``None`` if bytes say it all."""
    parts = [
        f'"{part}":{schema_text(needed)}'
        for part, schema in (("key", key), ("value", value))
        if schema is not None and (needed := _needed(schema)) is not None
    ]
    return f"{{{','.join(parts)}}}".encode() if parts else None


def image_schema(schema: Schema) -> Schema:
    """The schema of a row: of an envelope what is in ``after``, otherwise the schema itself."""
    images = {each.name: each.schema for each in schema.fields if each.name in ("before", "after")}
    if len(images) == 2 and all(image.type == "struct" for image in images.values()):
        return images["after"]
    return schema


def _needed(schema: Schema) -> Schema | None:
    image = image_schema(schema)
    if image.type != "struct":
        return None if _says_all(image) else _bare(image)
    fields = tuple(Field(each.name, _bare(each.schema)) for each in image.fields if not _says_all(each.schema))
    return Schema("struct", fields=fields) if fields else None


def _says_all(schema: Schema) -> bool:
    if schema.type not in _SAME_IN_JSON:
        return False
    if schema.name is None:
        return True
    return schema.type == "string" and scalar_meaning("string", schema.name, dict(schema.parameters)).text is same_text


def _bare(schema: Schema) -> Schema:
    """Only what the text of a value depends on."""
    return replace(
        schema,
        optional=True,
        doc=None,
        default=NO_DEFAULT,
        fields=tuple(Field(each.name, _bare(each.schema)) for each in schema.fields),
        keys=schema.keys and replace(_bare(schema.keys), optional=schema.keys.optional),  # says how a map is written
        values=schema.values and _bare(schema.values),
    )


def parse_told(header: bytes) -> Told:
    """What a header says. `DataError` for one that is not `told`'s."""
    try:
        text = header.decode()
        form, end = load(text)
        if end == len(text) and isinstance(form, Mapping) and form.keys() <= {"key", "value"}:
            return Told(*(_columns(form[part]) if part in form else {} for part in ("key", "value")))
        error: Exception = ValueError('expected an object of "key" and "value"')
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as caught:
        error = caught
    raise DataError(f"the header {HEADER_SCHEMA} cannot be read ({error}): {brief(header, 120)}") from None


def _columns(form: Any) -> dict[str, Schema]:
    schema = parse_schema(form)
    if schema.type != "struct":
        return {"": schema}
    return {each.name: each.schema for each in schema.fields}


# --- texts of values that were read without schema -------------------------------------------------------


def plain_column(schema: Schema | None) -> ColumnText:
    """How values of a column become text that JSON says nothing of but what they look like; ``schema`` is what a header
    told. `DataError` for a schema whose values have no text."""
    if schema is None:
        return ColumnText("text", plain_text)
    kind, text = column_text(schema)
    read = reader(schema)
    return ColumnText(kind, lambda value: text(read(value)))


def printed_column(schema: Schema | None) -> ColumnText:
    """The same for what Java printed, which is text all of it."""
    if schema is None:
        return ColumnText("text", plain_text)
    kind, text = column_text(schema)
    read: Callable[[Any], Any] = reader(schema)
    parse = _printed(schema)
    return ColumnText(kind, lambda value: text(read(parse(value))))


def _printed(schema: Schema) -> Callable[[str], Any]:
    """From Java's print to JSON's value. The results raise `ValueError`."""
    if schema.name == _DATE:
        return date_of
    if schema.type in _WHOLE:
        return int
    if schema.type == "boolean":
        return {"true": True, "false": False}.get
    if schema.type in ("float32", "float64", "bytes"):
        return _number
    return str


def _number(text: str) -> Any:
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{brief(text)} is no number") from None
    return number if number.is_finite() else text
