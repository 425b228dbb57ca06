"""Kafka Connect's JSON converter: values alone, or each with its schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cdc.codec.connect_json import parse_schema, schema_text, value_from_json
from cdc.codec.json_reader import Reader, load, reader
from cdc.codec.json_writer import any_text, writer
from cdc.converters.general import GeneralConverter
from cdc.converters.key_schemas import kept_key_schema
from cdc.converters.settings import BOOLEAN, Setting, read_settings
from cdc.errors import ConfigError, DataError, Finding
from cdc.plugin import Encoder, KeyMemory
from cdc.record import RowShape, Schema

__all__ = ["JsonConverter"]

_HEAD: Final = '{"schema":'
_MIDDLE: Final = ',"payload":'
_KNOWN_SCHEMAS: Final = 64
"""Schemas kept for each topic, the last ones used; more means that somebody makes a schema per record."""
_NOWHERE: Final = "\0"
"""No JSON begins so: the head of a schema that is known from payloads laid out in another way."""
_SPACES: Final = " \t\n\r"


@dataclass(frozen=True, slots=True)
class _Known:
    """A schema that payloads begin with: their text up to the value, and how it is read."""

    head: str
    schema: Schema | None
    read: Reader


class JsonConverter(GeneralConverter):
    """``org.apache.kafka.connect.json.JsonConverter``; what it writes is equal to the byte.

    A null stays a null where Kafka's default (``replace.null.with.default=true``) turns it into the column's default:
    that would put a value that nobody wrote into the mirror.
    """

    aliases: ClassVar[tuple[str, ...]] = ("org.apache.kafka.connect.json.JsonConverter",)
    nulls_have_schemas = True
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("schemas.enable", "true", "Whether each record carries its schema.", BOOLEAN),
        Setting(
            "decimal.format",
            "BASE64",
            "How decimals are written: the bytes of the number without its point, or a JSON number.",
            {"BASE64": False, "NUMERIC": True},
        ),
        Setting("replace.null.with.default", "false", "Whether a null becomes the default of its schema.", BOOLEAN),
        Setting("schema.content", "", "Schema of all records that are read, in this converter's own form."),
    )

    def __init__(self) -> None:
        super().__init__()
        self._schemas = True
        self._numeric = False
        self._replace_null = False
        self._fixed: _Known | None = None
        self._known: dict[str, list[_Known]] = {}

    def _configure(self, config: Mapping[str, str]) -> None:
        found = read_settings("JSON", self.settings, config, {"schemas.cache.size"})
        self._schemas = self.tells_types = found["schemas.enable"]
        self._numeric = found["decimal.format"]
        self._replace_null = found["replace.null.with.default"]
        if found["schema.content"]:
            try:
                schema = parse_schema(json.loads(found["schema.content"]))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError([Finding(f"it is no schema: {error}", key="schema.content")]) from None
            self._fixed = _Known("", schema, reader(schema, replace_null=self._replace_null))

    def _row_key_encoder(self, shape: RowShape, schema: Schema, memory: KeyMemory) -> Encoder:
        decimals = "NUMERIC" if self._numeric else "BASE64"
        form = f"JSON {'with' if self._schemas else 'without'} schemas, decimals {decimals}"
        kept = kept_key_schema(shape, schema, memory, form, bare=not self._schemas)
        return self.encoder(shape.topic, kept)

    def control_key(self, partition: int) -> bytes:
        # A row's key is a struct of a table's columns: its schema is named <topic>.Key, and none of its fields is a
        # struct with a field named so.
        if self._schemas:
            return (
                b'{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"partition"}],'
                b'"optional":false,"name":"cdc.ControlKey"},"payload":{"partition":%d}}' % partition
            )
        return b'{"cdc.ControlKey":{"partition":%d}}' % partition

    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        """As `cdc.plugin.Converter.encoder`. As in Connect, null with a schema is JSON's null and not a tombstone."""
        text: Callable[[Any], str]
        if schema is None:
            head, text = f"{_HEAD}null{_MIDDLE}", any_text
        else:
            head = f"{_HEAD}{schema_text(schema, numeric=self._numeric)}{_MIDDLE}"
            text = writer(schema, numeric=self._numeric, default=_default if self._replace_null else None)
        head, end = (head, "}") if self._schemas else ("", "")

        def encode(value: Any) -> bytes | None:
            if value is None and schema is None:
                return None
            try:
                return f"{head}{text(value)}{end}".encode()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{topic}: the value does not fit its schema: {error}") from error

        return encode

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        """As `cdc.plugin.Converter.to_connect`. What Kafka's converter would bend to the schema is refused."""
        if payload is None:
            return None, None
        try:
            text = payload.decode("utf-8")
            if self._fixed is not None:
                return self._fixed.schema, self._fixed.read(_whole(text))
            if not self._schemas:
                return None, _whole(text)
            return self._with_schema(topic, text)
        except ValueError as error:
            raise DataError(f"{topic}: cannot read the {self._part()}: {error}") from error

    def _with_schema(self, topic: str, text: str) -> tuple[Schema | None, Any]:
        known = self._known.setdefault(topic, [])
        for at, one in enumerate(known):
            if text.startswith(one.head):
                if at:
                    known.insert(0, known.pop(at))
                value, end = load(text, len(one.head))
                if text[end:] == "}":
                    return one.schema, one.read(value)
                break  # something stands behind the value: read it all
        envelope = _whole(text)
        if envelope is None:
            return None, None
        if not isinstance(envelope, dict) or envelope.keys() != {"schema", "payload"}:
            raise ValueError(
                'it is no object of "schema" and "payload" alone; for JSON without schemas set '
                f"{self._part()}.converter.schemas.enable=false"
            )
        form = envelope["schema"]
        schema = None if form is None else _schema(form)
        head = _head(text)
        same = next((each for each in known if each.schema == schema), None)
        if same is None or head is not None:
            # The same schema in other words stays the same object.
            schema = schema if same is None else same.schema
            read = _as_it_is if schema is None else reader(schema, replace_null=self._replace_null)
            same = _Known(_NOWHERE if head is None else head, schema, read)
            known.insert(0, same)
            del known[_KNOWN_SCHEMAS:]
        return same.schema, same.read(envelope["payload"])

    def _part(self) -> str:
        return "key" if self._is_key else "value"


def _whole(text: str) -> Any:
    """The one value of a JSON text."""
    text = text.strip(_SPACES)
    if not text:
        raise ValueError("it is empty")
    value, end = load(text)
    if end != len(text):
        raise ValueError(f"more follows the JSON value that ends at character {end}")
    return value


def _schema(form: Any) -> Schema:
    try:
        return parse_schema(form)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its schema is none: {error!r}") from None


def _head(text: str) -> str | None:
    """The text up to the value, where it is laid out as Kafka's converter does."""
    if not text.startswith(_HEAD) or text[len(_HEAD)] in _SPACES:
        return None
    _, end = load(text, len(_HEAD))
    return text[: end + len(_MIDDLE)] if text.startswith(_MIDDLE, end) else None


def _as_it_is(value: Any) -> Any:
    return value


def _default(schema: Schema) -> Any:
    return value_from_json(schema, schema.default)
