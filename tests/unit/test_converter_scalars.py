"""Converters of single values: Kafka's bytes, and no rows."""

from __future__ import annotations

import pytest
from converter_parts import Memory, change, column, configured, shape

from cdc.codec.java_text import java_text
from cdc.converters import scalars
from cdc.errors import ConfigError, DataError, FatalError
from cdc.record import Field, Schema

STORAGE = "org.apache.kafka.connect.storage.StringConverter"
CONVERTERS = "org.apache.kafka.connect.converters."


@pytest.mark.parametrize(
    ("name", "kind", "type_", "value", "data"),
    [
        (STORAGE, scalars.StringConverter, "string", "Zürich", "Zürich".encode()),
        (CONVERTERS + "ByteArrayConverter", scalars.ByteArrayConverter, "bytes", b"\x00\xff", b"\x00\xff"),
        (CONVERTERS + "ShortConverter", scalars.ShortConverter, "int16", -2, b"\xff\xfe"),
        (CONVERTERS + "IntegerConverter", scalars.IntegerConverter, "int32", 258, b"\x00\x00\x01\x02"),
        (CONVERTERS + "LongConverter", scalars.LongConverter, "int64", -1, b"\xff" * 8),
        (CONVERTERS + "FloatConverter", scalars.FloatConverter, "float32", 1.5, b"\x3f\xc0\x00\x00"),
        (CONVERTERS + "DoubleConverter", scalars.DoubleConverter, "float64", -2.0, b"\xc0" + b"\x00" * 7),
        (CONVERTERS + "BooleanConverter", scalars.BooleanConverter, "boolean", True, b"\x01"),
    ],
)
def test_values_as_kafkas_converters_write_them(name: str, kind: type, type_: str, value: object, data: bytes) -> None:
    assert name in kind.aliases  # type: ignore[attr-defined]
    converter = configured(kind, schemas_enable="false")
    assert converter.encoder("t", Schema(type_))(value) == data
    assert converter.encoder("t", Schema(type_))(None) is None
    assert converter.to_connect("t", data) == (Schema(type_, optional=True), value)
    assert converter.to_connect("t", None) == (None, None)
    if kind is not scalars.StringConverter:
        with pytest.raises(FatalError, match=f"writes {type_} only"):
            converter.encoder("t", Schema("array", values=Schema("string")))
        with pytest.raises(DataError, match="cannot write the value"):
            converter.encoder("t", None)([])
    if kind not in {scalars.StringConverter, scalars.ByteArrayConverter}:
        with pytest.raises(DataError, match="the value is none of"):
            converter.to_connect("t", data + b"\x00")
    with pytest.raises(FatalError, match="cannot write rows"):
        converter.value_encoder(shape(column("id", 23)))
    assert converter.control_key(1) != converter.control_key(2)
    assert not kind.writes_rows  # type: ignore[attr-defined]


def test_structs_as_java_prints_them() -> None:
    schema = Schema(
        "struct",
        fields=(
            Field("a", Schema("int32")),
            Field("none", Schema("string", optional=True)),
            Field("list", Schema("array", values=Schema("string", optional=True))),
            Field("map", Schema("map", keys=Schema("string"), values=Schema("boolean"))),
            Field("price", Schema("bytes", name="org.apache.kafka.connect.data.Decimal", parameters=(("scale", "2"),))),
            Field("day", Schema("int32", name="org.apache.kafka.connect.data.Date")),
            Field("at", Schema("int64", name="org.apache.kafka.connect.data.Timestamp")),
            Field("f", Schema("float64")),
            Field("s", Schema("float32")),
        ),
    )
    value = {
        "a": 1,
        "none": None,
        "list": ["x", None],
        "map": {"k": True},
        "price": b"\x30\x39",
        "day": 20000,
        "at": 1_700_000_000_000,
        "f": float("nan"),
        "s": 1e10,
    }
    assert java_text(schema)(value) == (
        "Struct{a=1,list=[x, null],map={k=true},price=123.45,day=Fri Oct 04 00:00:00 UTC 2024,"
        "at=Tue Nov 14 22:13:20 UTC 2023,f=NaN,s=1.0E10}"
    )
    assert java_text(None)({"a": [1, 2.5, None, True, "x"]}) == "{a=[1, 2.5, null, true, x]}"
    assert java_text(Schema("int32", optional=True))(None) == "null"


@pytest.mark.parametrize(
    ("schema", "value"),
    [(Schema("bytes"), b"x"), (None, b"x"), (Schema("int32", name="org.apache.kafka.connect.data.Date"), 3_000_000)],
)
def test_what_has_no_text_is_refused(schema: Schema | None, value: object) -> None:
    with pytest.raises(DataError, match="String converter cannot write the value"):
        configured(scalars.StringConverter).encoder("t", schema)(value)


def test_a_key_of_one_column_is_kafkas_text_and_of_several_is_refused() -> None:
    converter = configured(scalars.StringConverter, is_key=True)
    one = shape(column("id", 23))
    encode = converter.key_encoder(one, Memory())
    assert encode(change(one, b"7")) == b"Struct{id=7}"
    assert encode(change(one, b"7")) != converter.control_key(7)
    with pytest.raises(FatalError, match=r"a struct of \(a, b\)"):
        converter.key_encoder(shape(column("a", 25), column("b", 25), key=(0, 1)), Memory())
    keyless = shape(column("a", 25), key=())
    assert converter.key_encoder(keyless, Memory())(change(keyless, b"x")) is None
    with pytest.raises(FatalError, match="ByteArray converter cannot write the key"):
        configured(scalars.ByteArrayConverter, is_key=True).key_encoder(one, Memory())


def test_other_encodings() -> None:
    latin = configured(scalars.StringConverter, converter_encoding="ISO-8859-1")
    assert latin.encoder("t", Schema("string"))("é") == b"\xe9"
    assert latin.to_connect("t", b"\xe9")[1] == "é"
    with pytest.raises(DataError, match="String converter cannot write the value"):
        latin.encoder("t", Schema("string"))("€")
    with pytest.raises(DataError, match="the value is none"):
        configured(scalars.StringConverter).to_connect("t", b"\xff")
    with pytest.raises(ConfigError, match="'klingon' is no character encoding"):
        configured(scalars.StringConverter, converter_encoding="klingon")
    with pytest.raises(ConfigError, match="has no such property"):
        configured(scalars.LongConverter, size="8")
