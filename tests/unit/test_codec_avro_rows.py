"""Generated encoders: byte for byte what fastavro writes for the reference's values, whatever the schema and row."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.codec.avro_binary import long_bytes, zero
from cdc.codec.avro_rows import compile_key, compile_value
from cdc.codec.connect_avro import avro_schema
from cdc.codec.connect_json import value_from_json
from cdc.codec.envelope import row_shape
from cdc.codec.values import Inexact, reader
from cdc.errors import DataError, TableError
from cdc.postgres.types import PgType, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT, UNCHANGED, Column, RawRow, RowChange, RowShape, Transaction

VERSION = "9.9.9"
NOW = 1_760_000_000_123_456
CATALOG = {16410: PgType(16410, "mood", "public", "e", labels=("sad", "ok"))}


def _strip(tree: Any) -> Any:
    """The schema without logical types, so that fastavro takes and gives the primitive values."""
    if isinstance(tree, dict):
        return {key: _strip(value) for key, value in tree.items() if key != "logicalType"}
    return [_strip(item) for item in tree] if isinstance(tree, list) else tree


def _column(
    name: str, oid: int, typmod: int = -1, *, optional: bool = False, default: str = "", **modes: Any
) -> Column:
    mapping = resolve(oid, typmod, CATALOG, TypeModes(**modes))
    constant = default_value(default, mapping) if default else NO_DEFAULT
    return Column(name, replace(mapping.schema, optional=optional, default=constant), mapping.kind, mapping.params)


def _shape(columns: Sequence[Column], key: Sequence[int] = (0,)) -> RowShape:
    return row_shape("shop.public.orders", "shop", "public", "orders", columns, key, "shop")


def _tx(xid: int | None = 777, last: int | None = 123) -> Transaction:
    return Transaction(1, 456, 1_759_999_999_999_999, xid, last)


def _change(
    shape: RowShape, op: str, before: RawRow | None = None, after: RawRow | None = None, **more: Any
) -> RowChange:
    tx = more.pop("tx", None) or _tx()
    return RowChange(shape, op, after or before, before, after, tx, more.pop("lsn", 456_000), 0, 0, **more)


def _image(shape: RowShape, row: RawRow | None, *, old: bool) -> Any:
    """The values that the reference gives for a row image, for fastavro."""
    if row is None:
        return None
    image = {}
    for column, text in zip(shape.columns, row, strict=True):
        schema = column.schema
        value: Any
        if text is None or text is UNCHANGED:
            value = None
            if text is None and old and not schema.optional and schema.default is not NO_DEFAULT:
                value = value_from_json(schema, schema.default)
        else:
            value = reader(column.kind, column.params)(text)
            value = value.fallback if isinstance(value, Inexact) else value
        if value is None and not schema.optional:
            value = {"numeric_text": "0", "money_text": "0.00"}.get(column.kind, zero(schema))
        image[column.name] = value
    return image


def _by_fastavro(change: RowChange, now: int = NOW) -> bytes:
    shape, tx = change.shape, change.tx
    last = "null" if tx.last_commit_lsn is None else f'"{tx.last_commit_lsn}"'
    value = {
        "before": _image(shape, change.before, old=True),
        "after": _image(shape, change.after, old=False),
        "source": {
            "version": "9.9.9",
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": tx.commit_us // 1000,
            "snapshot": change.marker or "false",
            "db": shape.db,
            "sequence": f'[{last},"{change.lsn}"]',
            "ts_us": tx.commit_us,
            "ts_ns": tx.commit_us * 1000,
            "schema": shape.schema,
            "table": shape.table,
            "txId": tx.xid,
            "lsn": change.lsn,
            "xmin": None,
            "origin": None,
            "origin_lsn": None,
        },
        "transaction": None,
        "op": change.op,
        "ts_ms": now // 1000,
        "ts_us": now,
        "ts_ns": now * 1000,
    }
    return _written(shape.envelope_schema, value)


def _written(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(_strip(avro_schema(schema))), value)
    return out.getvalue()


def _read(shape: RowShape, data: bytes | None, writer_id: int = 2) -> Any:
    assert data is not None
    assert data[:5] == b"\x00" + writer_id.to_bytes(4, "big")
    stream = io.BytesIO(data[5:])
    schema = fastavro.parse_schema(_strip(avro_schema(shape.envelope_schema)))
    value = fastavro.schemaless_reader(stream, schema, None)
    assert stream.read() == b""
    return value


# --- any schema, any row ---------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
_INT = {21: 2**15, 23: 2**31, 20: 2**63}


def _moments() -> st.SearchStrategy[str]:
    def shown(moment: datetime) -> str:
        return str(moment).rstrip("0") if moment.microsecond else str(moment)

    return st.datetimes().map(shown) | st.sampled_from(
        ["infinity", "-infinity", "0044-03-15 12:00:00 BC", "10000-01-01 00:00:00", "294276-12-31 23:59:59.999999"]
    )


def _zoned(text: str) -> str:
    if text.endswith("infinity"):
        return text
    return text.removesuffix(" BC") + "+00" + (" BC" if text.endswith(" BC") else "")


def _clocks() -> st.SearchStrategy[str]:
    return st.times().map(lambda t: str(t).rstrip("0") if t.microsecond else str(t)) | st.just("24:00:00")


def _numerics() -> st.SearchStrategy[str]:
    plain = st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: f"{d if d else abs(d):f}")
    return st.sampled_from(["NaN", "Infinity", "-Infinity", "0", "1.50"]) | plain.filter(lambda text: text[-1] != ".")


def _scaled() -> st.SearchStrategy[str]:
    return st.integers(-(10**9), 10**9).map(lambda n: f"{Decimal(n).scaleb(-2):.2f}") | st.just("NaN")


def _array(element: st.SearchStrategy[str | None]) -> st.SearchStrategy[str]:
    def quote(text: str | None) -> str:
        if text is None:
            return "NULL"
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    one = st.lists(element, max_size=4).map(lambda items: "{" + ",".join(map(quote, items)) + "}")
    return one | st.sampled_from(["{{1,2},{3,4}}", "[2:3]={1,2}"])


TYPES: list[tuple[int, int, st.SearchStrategy[str], list[str]]] = [
    (16, -1, st.sampled_from(["t", "f"]), ["true"]),
    *((oid, -1, st.integers(-size, size - 1).map(str), ["5", "'-7'::integer"]) for oid, size in _INT.items()),
    (26, -1, st.integers(0, 2**32 - 1).map(str), []),
    (700, -1, st.floats(width=32).map(lambda f: _shown(f, 9)), ["1.5"]),
    (701, -1, st.floats().map(lambda f: _shown(f, 17)), ["-2.5"]),
    (1700, (10 << 16 | 2) + 4, _scaled(), ["1.5"]),
    (1700, -1, _numerics(), []),
    (790, -1, st.sampled_from(["$0.00", "-$1,234.50", "$92,233,720,368,547,758.07"]), []),
    (25, -1, _TEXT, ["'it''s'::text", "''::text"]),
    (25, -1, st.integers(4090, 9000).map(lambda size: "é" * size), []),
    (3802, -1, st.sampled_from(['{"a": 1}', "null", '"żółw"']), ["'{}'::jsonb"]),
    (16410, -1, st.sampled_from(["sad", "ok"]), ["'sad'::mood"]),
    (2950, -1, st.uuids().map(str), ["'123e4567-e89b-12d3-a456-426614174000'::uuid"]),
    (17, -1, st.binary(max_size=20).map(lambda data: "\\x" + data.hex()), []),
    (1082, -1, st.dates().map(str) | st.sampled_from(["infinity", "0044-03-15 BC"]), ["'2020-02-29'::date"]),
    (1083, -1, _clocks(), ["'01:02:03'::time without time zone"]),
    (1083, 0, _clocks(), []),
    (1114, -1, _moments(), ["'2020-02-29 12:34:56'::timestamp without time zone"]),
    (1114, 3, _moments(), []),
    (1184, -1, _moments().map(_zoned), ["'2020-02-29 12:34:56+00'::timestamp with time zone"]),
    (1266, -1, _clocks().map(lambda text: text + "+00") | st.just("12:00:00+02"), []),
    (1186, -1, st.sampled_from(["01:02:03", "-00:00:00.5", "1 mon -1 days", "178000000 years"]), ["'1 day'::interval"]),
    (1560, 1, st.sampled_from(["0", "1"]), ["B'1'::\"bit\""]),
    (1562, -1, st.text("01", max_size=70), []),
    (1007, -1, _array(st.none() | st.integers(-9, 9).map(str)), []),
    (1009, -1, _array(st.none() | _TEXT), []),
    (1231, -1, _array(st.none() | _numerics()), []),
]


def _shown(value: float, digits: int) -> str:
    if value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    if abs(value) == float("inf"):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.{digits}g}"


@st.composite
def _tables(draw: st.DrawFn) -> tuple[list[Column], list[list[str | None]]]:
    modes = {
        "decimal": draw(st.sampled_from(["precise", "string", "double"])),
        "time": draw(st.sampled_from(["adaptive", "connect", "isostring", "microseconds", "nanoseconds"])),
        "binary": draw(st.sampled_from(["bytes", "base64", "hex"])),
        "interval": draw(st.sampled_from(["numeric", "string"])),
    }
    columns, texts = [], []
    for at, (oid, typmod, values, defaults) in enumerate(draw(st.lists(st.sampled_from(TYPES), max_size=12))):
        optional = draw(st.booleans())
        default = draw(st.sampled_from(["", *defaults]))
        columns.append(_column(f"c{at}", oid, typmod, optional=optional, default=default, **modes))
        texts.append(st.none() | values if optional else values)
    return columns, draw(st.lists(st.tuples(*texts).map(list), min_size=1, max_size=3))


@settings(max_examples=150, deadline=None)
@given(_tables(), st.sampled_from(["c", "u", "d", "r"]), st.sampled_from([None, "first", "true", "last"]), st.data())
def test_bytes_are_fastavros(
    table: tuple[list[Column], list[list[str | None]]], op: str, marker: str | None, data: st.DataObject
) -> None:
    columns, rows = table
    shape = _shape(columns, ())
    encode = compile_value(shape, 2, VERSION)
    tx = _tx(data.draw(st.none() | st.integers(3, 2**32 - 1)), data.draw(st.none() | st.integers(0, 2**63 - 1)))
    for texts in rows:
        row: RawRow = [None if text is None else text.encode() for text in texts]
        partly = [data.draw(st.sampled_from([text, None, UNCHANGED])) for text in row]
        whole = [data.draw(st.sampled_from([text, text, UNCHANGED])) for text in row]
        before = None if op in {"c", "r"} else data.draw(st.sampled_from([None, row, partly]))
        after = None if op == "d" else whole
        lsn, now = data.draw(st.integers(0, 2**63 - 1)), data.draw(st.integers(0, 2**52))
        change = _change(shape, op, before, after, tx=tx, lsn=lsn, marker=marker)
        got = encode(change, now)
        assert got == b"\x00\x00\x00\x00\x02" + _by_fastavro(change, now)
        back = _read(shape, got)
        assert repr(back["after"]) == repr(_image(shape, after, old=False))
        assert encode(change, now) == got
        inexact = {
            column.name: value.text
            for column, text in zip(columns, whole, strict=True)
            if isinstance(text, bytes) and isinstance(value := reader(column.kind, column.params)(text), Inexact)
        }
        headers = dict(change.headers)
        told = json.loads(headers["cdc.text"]) if "cdc.text" in headers else {}
        assert told == (inexact if after is not None else {})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TYPES), st.binary(max_size=30) | _TEXT.map(str.encode), st.booleans())
def test_garbage_is_refused_with_its_column_or_read_as_the_reference_reads_it(
    type_: tuple[int, int, Any, Any], text: bytes, optional: bool
) -> None:
    columns = [_column("id", 23), _column("strange", type_[0], type_[1], optional=optional)]
    shape = _shape(columns)
    change = _change(shape, "c", after=[b"1", text])
    try:
        reader(columns[1].kind, columns[1].params)(text)
    except ValueError:
        with pytest.raises(DataError, match=r"shop\.public\.orders: column 'strange' of type"):
            compile_value(shape, 2, VERSION)(change, NOW)
    else:
        assert compile_value(shape, 2, VERSION)(change, NOW) == b"\x00\x00\x00\x00\x02" + _by_fastavro(change)


@pytest.mark.parametrize("text", [b"1_0", b" 1", b"+1", b"0x1", b"99999999999", b"1.0", b"", "٣".encode()])
def test_what_python_would_take_for_an_integer_is_refused(text: bytes) -> None:
    shape = _shape([_column("id", 23)])
    with pytest.raises(DataError, match="column 'id' of type int32"):
        compile_value(shape, 2, VERSION)(_change(shape, "c", after=[text]), NOW)
    with pytest.raises(DataError, match="column 'id' of type int32"):
        compile_key(shape, 1)(_change(shape, "c", after=[text]))


# --- what is not there -----------------------------------------------------------------------------------------


def test_null_of_a_nullable_column_with_a_default_stays_null() -> None:
    columns = [_column("id", 23)] + [
        _column(name, oid, optional=True, default=default)
        for name, oid, default in (
            ("i", 23, "5"),
            ("t", 25, "'x'::text"),
            ("d", 1082, "'2020-01-01'::date"),
            ("f", 701, "2.5"),
        )
    ]
    shape = _shape(columns)
    value = _read(
        shape, compile_value(shape, 2, VERSION)(_change(shape, "c", after=[b"1", None, None, None, None]), NOW)
    )
    assert value["after"] == {"id": 1, "i": None, "t": None, "d": None, "f": None}


def test_old_row_with_the_key_alone_is_filled_as_debezium_fills_it() -> None:
    columns = [
        _column("id", 23),
        _column("a", 25),
        _column("n", 23, default="3"),
        _column("v", 23, optional=True),
        _column("at", 1184),
        _column("u", 2950),
        _column("j", 3802),
        _column("price", 1700, (10 << 16 | 2) + 4),
        _column("loose", 1700),
        _column("tags", 1009),
        _column("ok", 16),
        _column("dflt", 1184, default="'2000-01-01 00:00:00+00'::timestamp with time zone"),
    ]
    shape = _shape(columns)
    change = _change(shape, "d", before=[b"7", *[None] * 11])
    before = _read(shape, compile_value(shape, 2, VERSION)(change, NOW))["before"]
    assert before == {
        "id": 7,
        "a": "",
        "n": 3,
        "v": None,
        "at": "1970-01-01T00:00:00Z",
        "u": "",
        "j": "",
        "price": b"\x00",
        "loose": {"scale": 0, "value": b"\x00"},
        "tags": [],
        "ok": False,
        "dflt": "2000-01-01T00:00:00.000000Z",
    }
    assert change.headers == ()


def test_unchanged_columns_are_filled_and_named() -> None:
    columns = [_column("id", 23), _column("big", 25, optional=True), _column("more", 3802, default="'{}'::jsonb")]
    shape = _shape(columns)
    change = _change(shape, "u", after=[b"1", UNCHANGED, UNCHANGED], unknown=["big", "more"], headers=[("x", b"y")])
    encode = compile_value(shape, 2, VERSION)
    assert _read(shape, encode(change, NOW))["after"] == {"id": 1, "big": None, "more": ""}
    encode(change, NOW)
    assert list(change.headers) == [("x", b"y"), ("cdc.unknown", b'["big","more"]')]


def test_inexact_values_of_the_new_row_are_told_in_a_header() -> None:
    columns = [_column("id", 23), _column("n", 1700, optional=True), _column("żółw", 1700), _column("d", 1082)]
    shape = _shape(columns)
    row = [b"1", b"1.50", b"NaN", b"infinity"]
    change = _change(shape, "u", before=row, after=row)
    value = _read(shape, compile_value(shape, 2, VERSION)(change, NOW))
    assert value["after"]["n"] == {"scale": 1, "value": b"\x0f"}
    assert value["after"]["żółw"] == {"scale": 0, "value": b"\x00"}
    assert value["after"]["d"] == 2**31 - 1
    assert list(change.headers) == [("cdc.text", '{"n":"1.50","żółw":"NaN"}'.encode())]


def test_inexact_values_of_the_old_row_are_not() -> None:
    shape = _shape([_column("id", 23), _column("n", 1700, optional=True)])
    change = _change(shape, "d", before=[b"1", b"1.50"])
    compile_value(shape, 2, VERSION)(change, NOW)
    assert change.headers == ()


@pytest.mark.parametrize("oid", [23, 25, 16, 1082, 701, 1009])
def test_null_from_before_the_column_was_not_null(oid: int) -> None:
    shape = _shape([_column("id", 23), _column("late", oid)])
    change = _change(shape, "c", after=[b"1", None])
    value = _read(shape, compile_value(shape, 2, VERSION)(change, NOW))
    assert value["after"]["late"] == zero(shape.columns[1].schema)
    assert list(change.headers) == [("cdc.text", b'{"late":null}')]


def test_tombstones_truncates_and_keyless_tables() -> None:
    shape = _shape([_column("id", 23)])
    encode = compile_value(shape, 2, VERSION)
    assert encode(_change(shape, "", before=[b"1"]), NOW) is None
    truncate = RowChange(shape, "t", None, None, None, _tx(), 1, 0, 0, broadcast=True)
    assert encode(truncate, NOW) == b"\x00\x00\x00\x00\x02" + _by_fastavro(truncate)
    assert compile_key(shape, 1)(truncate) is None
    keyless = _shape([_column("id", 23)], ())
    assert keyless.key_schema is None
    assert compile_key(keyless, 1)(_change(keyless, "c", after=[b"1"])) is None


def test_transactions_do_not_mix() -> None:
    shape, other = _shape([_column("id", 23)]), _shape([_column("id", 20)])
    encoders = {shape: compile_value(shape, 2, VERSION), other: compile_value(other, 3, VERSION)}
    one, two = _tx(1, None), _tx(2, 99)
    for tx in (one, two, one):
        for which, encode in encoders.items():
            for marker in (None, "true", None):
                change = _change(which, "c", after=[b"5"], tx=tx, marker=marker)
                data = encode(change, NOW)
                assert data is not None
                assert data[5:] == _by_fastavro(change)


# --- keys ------------------------------------------------------------------------------------------------------


def _key_value(shape: RowShape, data: bytes | None) -> Any:
    assert data is not None
    assert data[:5] == b"\x00\x00\x00\x01\x00"
    stream = io.BytesIO(data[5:])
    value = fastavro.schemaless_reader(stream, fastavro.parse_schema(_strip(avro_schema(shape.key_schema))), None)
    assert stream.read() == b""
    return value


def test_key_columns_in_the_order_of_the_key() -> None:
    columns = [_column("v", 25), _column("b", 25), _column("a", 20), _column("o", 23, optional=True, default="5")]
    shape = _shape(columns, (2, 1, 3))
    encode = compile_key(shape, 256)
    change = _change(shape, "c", after=[b"v", "ż".encode(), b"-9223372036854775808", None])
    assert _key_value(shape, encode(change)) == {"a": -(2**63), "b": "ż", "o": None}
    change = _change(shape, "c", after=[UNCHANGED, b"", b"4096", b"6"])
    assert _key_value(shape, encode(change)) == {"a": 4096, "b": "", "o": 6}


def test_key_follows_the_schema_it_is_given() -> None:
    shape = _shape([_column("k", 23, optional=True)])
    remembered = _shape([_column("k", 23, optional=True, default="5")])
    encode = compile_key(shape, 256, remembered.key_schema)
    change = _change(shape, "c", after=[b"1"])
    assert encode(change) == b"\x00\x00\x00\x01\x00" + _written(remembered.key_schema, {"k": 1})
    assert encode(change) != compile_key(shape, 256)(change)


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        (_column("k", 1700), b"1.50", r"'k' = '1\.50'"),
        (_column("k", 1700, (10 << 16 | 2) + 4), b"NaN", "'k' = 'NaN'"),
        (_column("k", 23), None, "'k' = NULL"),
        (_column("k", 25), None, "'k' = NULL"),
        (_column("k", 25), UNCHANGED, "'k' = unknown"),
        (_column("k", 23), UNCHANGED, "'k' = unknown"),
        (_column("k", 2950, optional=True), UNCHANGED, "'k' = unknown"),
    ],
)
def test_keys_that_are_not_exact_or_not_known_are_refused(column: Column, value: Any, shown: str) -> None:
    shape = _shape([column, _column("v", 25)])
    with pytest.raises(TableError, match=rf"shop\.public\.orders: the record key \({shown}.*numeric with a scale"):
        compile_key(shape, 1)(_change(shape, "c", after=[value, b""]))


def test_a_row_of_another_width_is_refused() -> None:
    shape = _shape([_column("id", 23), _column("v", 25)])
    change = _change(shape, "c", after=[b"1"])
    with pytest.raises(DataError, match="1 values where the table has 2 columns"):
        compile_value(shape, 2, VERSION)(change, NOW)
    with pytest.raises(DataError, match="1 values where the table has 2 columns"):
        compile_key(shape, 1)(change)


@settings(max_examples=500)
@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_of_all_sizes(value: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, {"type": "long"}, value)
    assert long_bytes(value) == out.getvalue()


@pytest.mark.parametrize("bits", range(64))
def test_integers_at_the_edges(bits: int) -> None:
    for value in {2**bits - 1, -(2**bits), 2**bits - 2, 1 - 2**bits}:
        if -(2**63) <= value < 2**63:
            test_integers_of_all_sizes.hypothesis.inner_test(value)  # type: ignore[attr-defined]


def test_many_dates_do_not_fill_the_memory() -> None:
    shape = _shape([_column("d", 1082, optional=True)])
    encode = compile_value(shape, 2, VERSION)
    day = date(1900, 1, 1)
    for step in range(10_000):
        day += timedelta(days=1)
        data = encode(_change(shape, "c", after=[str(day).encode()]), NOW)
        if step % 500 == 0:
            assert _read(shape, data)["after"] == {"d": day.toordinal() - 719163}
    assert _read(shape, encode(_change(shape, "c", after=[None]), NOW))["after"] == {"d": None}
