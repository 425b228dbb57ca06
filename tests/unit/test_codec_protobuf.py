"""Protobuf files in Confluent's names, messages of others, and what has no form."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest

pytest.importorskip("google.protobuf")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import Message

from cdc.codec.protobuf_plan import ProtobufFile, payload_writer
from cdc.codec.protobuf_schema import proto_name, protobuf_text
from cdc.codec.protobuf_values import date_of, days_of
from cdc.errors import DataError
from cdc.record import Field, Schema

_Proto = descriptor_pb2.FieldDescriptorProto


def _file(text: str) -> Any:
    return descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text))


def _decimal(**more: Any) -> Schema:
    parameters = (("scale", "2"), ("connect.decimal.precision", "9"))
    return Schema("bytes", name="org.apache.kafka.connect.data.Decimal", version=1, parameters=parameters, **more)


def test_names_are_the_schemas() -> None:
    inner = Schema("struct", optional=True, name="shop.public.t.Value", fields=(Field("id", Schema("int32")),))
    schema = Schema(
        "struct",
        name="shop.public.t.Envelope",
        fields=(
            Field("before", inner),
            Field("after", inner),
            Field("price", _decimal(optional=True)),
            Field("op", Schema("string", optional=True)),
            Field("größe", Schema("int64")),
        ),
    )
    file = _file(protobuf_text(schema))
    assert file.package == "shop.public.t"
    assert file.syntax == "proto3"
    assert [message.name for message in file.message_type] == ["Envelope"]
    envelope = file.message_type[0]
    assert [message.name for message in envelope.nested_type] == ["Value", "ValueMessage"]
    assert [(field.name, field.number) for field in envelope.field] == [
        ("before", 1),
        ("after", 2),
        ("price", 3),
        ("op", 4),
        ("gr_xF6_xDFe", 5),
    ]
    assert envelope.field[0].type_name == ".shop.public.t.Envelope.Value"
    assert envelope.field[2].type_name == ".confluent.type.Decimal"
    assert [field.proto3_optional for field in envelope.field] == [False, False, False, True, False]
    assert list(file.dependency) == ["confluent/meta.proto", "confluent/type/decimal.proto"]
    assert ProtobufFile(protobuf_text(schema)).schema() == schema


def test_names_protobuf_refuses_are_spelled_out() -> None:
    assert proto_name("1st-row") == "_x1st_x2Drow"
    assert proto_name("plain_1") == "plain_1"


@pytest.mark.parametrize(
    "names",
    [
        ("a", "_a"),
        ("_a", "X_a", "a"),
        ("\u00e9", "_xE9", "_xE9_"),
        ("foo_bar", "fooBar", "foo__bar", "_foo_bar", "FooBar"),
        ("words", "wordsList", "wordsListMessage", "wordsItem"),
        ("Clear", "DESCRIPTOR", "class", "__init__", "None"),
        tuple(name for name in dir(Message) if not name.startswith("__")),
        ("HasField", "SetInParent", "SerializeToString", "ParseFromString", "FromString", "Extensions"),
        (
            "message",
            "package",
            "import",
            "syntax",
            "option",
            "reserved",
            "extend",
            "oneof",
            "map",
            "string",
            "true",
            "inf",
        ),
    ],
)
def test_names_that_protobuf_takes_for_one_stay_apart(names: tuple[str, ...]) -> None:
    """Nullable texts, and a list in front: each name has its own value."""
    words = Schema("array", optional=True, values=Schema("string", optional=True))
    text = Schema("string", optional=True)
    fields = (Field("words", words), *(Field(name, text) for name in names if name != "words"))
    schema = Schema("struct", name="a.b.T", fields=fields)
    row = {field.name: ["x", None] if field.name == "words" else field.name for field in fields}
    registered = protobuf_text(schema)
    write, file = payload_writer(registered, schema), ProtobufFile(registered)
    assert file.read(write(row)) == (schema, row)


def test_nulls_and_empty_lists_are_told_apart() -> None:
    words = Schema("array", optional=True, values=Schema("string", optional=True))
    nested = Schema("array", values=Schema("array", values=Schema("int32")))
    schema = Schema("struct", name="T", fields=(Field("words", words), Field("nested", nested)))
    text = protobuf_text(schema)
    write, file = payload_writer(text, schema), ProtobufFile(text)
    for value in (None, [], [None], ["", None, "x"]):
        data = write({"words": value, "nested": [[], [1, 2]]})
        assert data[0] == 0
        assert file.read(data) == (schema, {"words": value, "nested": [[], [1, 2]]})


@pytest.mark.parametrize("days", [-719162, -1, 0, 59, 11016, 20000, 2932896])
def test_dates_are_those_of_the_calendar(days: int) -> None:
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days)
    assert date_of(days) == (date.year, date.month, date.day)


@pytest.mark.parametrize("days", [-(2**31), -735160, -719528, 2**31 - 1, *range(-40000, 40000, 613)])
def test_dates_of_all_times_come_back(days: int) -> None:
    assert days_of(*date_of(days)) == days


def _foreign() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    state = file.enum_type.add(name="State")
    state.value.add(name="NEW", number=0)
    state.value.add(name="PAID", number=1)
    file.message_type.add(name="First")
    order = file.message_type.add(name="Order")
    line = order.nested_type.add(name="Line")
    line.field.add(name="sku", number=1, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    entry = order.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Proto.TYPE_INT64, label=_Proto.LABEL_OPTIONAL)

    def field(name: str, type_: int, type_name: str = "", label: int = _Proto.LABEL_OPTIONAL) -> None:
        number = len(order.field) + 1
        order.field.add(
            name=name, number=number, type=type_, label=label, **({"type_name": type_name} if type_name else {})
        )

    field("id", _Proto.TYPE_UINT32)
    field("at", _Proto.TYPE_MESSAGE, ".google.protobuf.Timestamp")
    field("lines", _Proto.TYPE_MESSAGE, ".shop.Order.Line", _Proto.LABEL_REPEATED)
    field("tags", _Proto.TYPE_MESSAGE, ".shop.Order.TagsEntry", _Proto.LABEL_REPEATED)
    field("state", _Proto.TYPE_ENUM, ".shop.State")
    field("data", _Proto.TYPE_BYTES)
    field("missing", _Proto.TYPE_MESSAGE, ".shop.Order.Line")
    return file


def test_messages_of_others_are_read() -> None:
    file = _foreign()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))()
    message.id = 7
    message.at.seconds = 3
    message.lines.add().sku = "a"
    message.tags["x"] = 5
    message.state = 1
    message.data = b"\x00"
    text = base64.b64encode(file.SerializeToString()).decode()
    # the second message of the file: one index, 1, in zigzag
    schema, value = ProtobufFile(text).read(b"\x02\x02" + message.SerializeToString())
    assert schema.name == "Order"
    types = {field.name: field.schema for field in schema.fields}
    assert types["id"].type == "int64"
    assert types["at"].name == "org.apache.kafka.connect.data.Timestamp"
    assert types["missing"].optional
    assert value == {
        "id": 7,
        "at": 3000,
        "lines": [{"sku": "a"}],
        "tags": {"x": 5},
        "state": "PAID",
        "data": b"\x00",
        "missing": None,
    }
    nested, line = ProtobufFile(text).read(b"\x04\x02\x00" + message.lines[0].SerializeToString())
    assert (nested.name, line) == ("Line", {"sku": "a"})
    for path in (b"\x02\x08", b"\x02\x01", b"", b"\x04\x02\x09"):
        with pytest.raises(ValueError, match="no Protobuf message"):
            ProtobufFile(text).read(path)


def test_what_cannot_be_read_is_refused() -> None:
    file = _foreign()
    file.dependency.append("shop/other.proto")
    with pytest.raises(DataError, match=r"imports shop/other\.proto"):
        ProtobufFile(base64.b64encode(file.SerializeToString()).decode())
    for text in ('syntax = "proto3";', "AAAA", "/w=="):
        with pytest.raises(DataError, match="cannot read the Protobuf schema"):
            ProtobufFile(text)
    loop = descriptor_pb2.FileDescriptorProto(name="loop.proto", syntax="proto3")
    node = loop.message_type.add(name="Node")
    node.field.add(name="next", number=1, type=_Proto.TYPE_MESSAGE, type_name=".Node", label=_Proto.LABEL_OPTIONAL)
    with pytest.raises(DataError, match="contains itself"):
        ProtobufFile(base64.b64encode(loop.SerializeToString()).decode()).schema()


def test_a_value_that_does_not_fit_is_named() -> None:
    schema = Schema("struct", name="T", fields=(Field("id", Schema("int32")),))
    write = payload_writer(protobuf_text(schema), schema)
    for value, told in ((None, "requires a value"), ("x", "id"), (2**40, "id")):
        with pytest.raises(ValueError, match=told):
            write({"id": value})
