"""Points, vectors, geometries: Postgres's text through Debezium's schemas and Avro back to Postgres's text."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.codec.avro_binary import writer
from cdc.codec.avro_fields import compile_fields
from cdc.codec.canonical_floats import float4_text, float8_text
from cdc.codec.connect_avro import avro_text
from cdc.codec.inexact import Inexact
from cdc.codec.values import reader
from cdc.postgres.types import PgType, TypeMapping, TypeModes, resolve
from cdc.record import Field, Schema

NAMES = ("vector", "halfvec", "sparsevec", "geometry", "geography", "hstore", "point", "box")
TYPES = {number: PgType(number, name, "ext", "b") for number, name in enumerate(NAMES, 90_000)} | {
    number + 100: PgType(number + 100, f"_{name}", "ext", "b", element=number)
    for number, name in enumerate(NAMES, 90_000)
}


def mapping(name: str, **modes: Any) -> TypeMapping:
    oid = 600 if name == "point" else next(oid for oid, type_ in TYPES.items() if type_.name == name)
    return resolve(oid, -1, TYPES, TypeModes(**modes))


def canonical_through_avro(told: TypeMapping, text: bytes) -> bytes:
    schema = Schema("struct", name="t.Value", fields=(Field("v", told.schema),))
    value = reader(told.kind, told.params)(text)
    assert not isinstance(value, Inexact)
    fields, _ = compile_fields(avro_text(schema)).decode(writer(schema)({"v": value}), 0)
    assert fields is not None
    return fields[1]


singles = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(
    lambda value: 1e-38 < abs(value) < 3e38 or value == 0
) | st.sampled_from([1e-45, 1.1754942e-38, 3.4028234663852886e38, 16777216.0, 33554432.0])


@given(st.lists(singles, min_size=1, max_size=6))
def test_a_vector_is_printed_as_postgres_prints_it(values: list[float]) -> None:
    texts = [float4_text(struct.unpack("<f", struct.pack("<f", value))[0]) for value in values]
    for name in ("vector", "halfvec"):
        text = b"[" + b",".join(texts) + b"]"
        assert canonical_through_avro(mapping(name), text) == text
    sparse = b",".join(b"%d:%b" % (place, text) for place, text in enumerate(texts, 1) if text not in (b"0", b"-0"))
    assert canonical_through_avro(mapping("sparsevec"), b"{%b}/9" % sparse) == b"{%b}/9" % sparse


@given(st.floats(), st.floats())
def test_a_point_is_printed_as_postgres_prints_it(x: float, y: float) -> None:
    text = b"(%b,%b)" % (float8_text(x), float8_text(y))
    assert canonical_through_avro(mapping("point"), text) == text
    value = reader("point")(text)
    assert value["wkb"] == b"\x01\x01\0\0\0" + struct.pack("<dd", value["x"], value["y"])


@pytest.mark.parametrize(
    ("text", "srid"),
    [
        ("0101000000000000000000F03F0000000000000040", None),
        ("0101000020E6100000000000000000F03F0000000000000040", 4326),
        ("00200000010000" + "10E6" + "3FF0000000000000" * 2, 4326),
        ("010700000000000000", None),
    ],
)
@pytest.mark.parametrize("name", ["geometry", "geography"])
def test_a_geometry_keeps_its_bytes_and_tells_its_srid(name: str, text: str, srid: int | None) -> None:
    value = reader("geometry")(text.encode())
    assert value == {"wkb": bytes.fromhex(text), "srid": srid}
    assert canonical_through_avro(mapping(name), text.encode()) == text.encode()


def test_a_sparse_vector_of_more_dimensions_than_debezium_counts_is_exact_beside_it() -> None:
    assert reader("sparse_vector")(b"{1:1,40000:2}/40000") == Inexact(None, "{1:1,40000:2}/40000")
    assert reader("sparse_vector")(b"{32767:1}/32767") == {"dimensions": 32767, "vector": {32767: 1.0}}


@pytest.mark.parametrize("mode", ["json", "map"])
def test_an_hstore_is_json_in_both_modes(mode: str) -> None:
    text = rb'"a"=>"1", "q\"\\"=>"v, => x", "n"=>NULL'
    assert canonical_through_avro(mapping("hstore", hstore=mode), text) == b'{"a":"1","q\\"\\\\":"v, => x","n":null}'


def test_a_byte_that_is_no_text_is_escaped() -> None:
    assert reader("char")(b"\xc3") == "\\303"
    assert [reader("char")(text) for text in (b"c", b"", b"\\303", "é".encode())] == ["c", "", "\\303", "é"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("point", b"(1,2"),
        ("point", b"(1,)"),
        ("geometry", b"POINT(1 2)"),
        ("geometry", b"0101000000abcd"),
        ("geometry", b"01"),
        ("vector", b"(1,2)"),
        ("vector", b"[1,nan]"),
        ("vector", b"[]"),
        ("sparse_vector", b"{1:1,}/5"),
        ("sparse_vector", b"{1:1}"),
        ("hstore_json", b'"a"=>1'),
        ("hstore_map", b'"a"=>"1",'),
    ],
)
def test_text_that_postgres_does_not_print_is_refused(kind: str, text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        reader(kind, (64,) if kind == "vector" else ())(text)
