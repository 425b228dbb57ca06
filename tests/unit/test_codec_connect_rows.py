"""Native values of row changes are those that the generated encoders write as bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_codec_avro_rows import NOW, VERSION, _change, _column, _shape

from cdc.codec.avro_binary import writer
from cdc.codec.avro_rows import compile_key, compile_value
from cdc.codec.connect_rows import row_values
from cdc.errors import TableError
from cdc.record import UNCHANGED, RawRow, RowChange, TransactionBlock

SHAPE = _shape(
    [
        _column("id", 23),
        _column("name", 25, optional=True, default="'nobody'::text"),
        _column("price", 1700, (10 << 16 | 2) + 4),
        _column("at", 1184, optional=True),
        _column("tags", 1009, optional=True),
        _column("amount", 790, decimal="string"),
    ]
)
_ROWS = st.builds(
    lambda key, *rest: [b"%d" % key, *rest],
    st.integers(-(2**31), 2**31 - 1),
    st.none() | st.just(UNCHANGED) | st.text().map(str.encode),
    st.sampled_from([b"1.50", b"NaN", b"-0.01", None]),
    st.sampled_from([b"2026-01-31 12:00:00+00", b"infinity", b"0044-03-15 00:00:00+00 BC", None]),
    st.sampled_from([b"{a,NULL}", b"{}", None]),
    st.sampled_from([b"$1.00", b"-$1,234.56", UNCHANGED]),
)


def _same_bytes(change: RowChange) -> None:
    envelope = row_values(SHAPE, VERSION).envelope(change, NOW)
    general, change.headers = change.headers, ()
    data = compile_value(SHAPE, 2, VERSION)(change, NOW)
    assert data is not None
    assert writer(SHAPE.envelope_schema)(envelope) == data[5:]
    assert sorted(general) == sorted(change.headers)


@given(before=st.none() | _ROWS, after=_ROWS)
def test_envelopes_have_the_values_of_the_bytes(before: RawRow | None, after: RawRow) -> None:
    _same_bytes(_change(SHAPE, "u" if before else "c", before, after, unknown=["name"] if UNCHANGED in after else []))


def test_a_change_may_have_its_place_in_its_transaction() -> None:
    change = _change(SHAPE, "c", after=[b"1", b"x", b"1.50", None, None, b"$1.00"])
    change.block = TransactionBlock("5:7", 2**40, 3)
    _same_bytes(change)
    envelope = row_values(SHAPE, VERSION).envelope(change, NOW)
    assert envelope is not None
    assert envelope["transaction"] == {"id": "5:7", "total_order": 2**40, "data_collection_order": 3}


def test_a_delete_has_fillers_for_what_its_old_row_lacks() -> None:
    _same_bytes(_change(SHAPE, "d", before=[b"1", None, None, None, None, None]))


def test_a_tombstone_has_a_key_and_no_value() -> None:
    record = row_values(SHAPE, VERSION).record(_change(SHAPE, "", before=[b"7", *[None] * 5]), NOW)
    assert (record.key, record.value, record.value_schema) == ({"id": 7}, None, None)
    assert record.compacted


@given(key=st.integers(-(2**31), 2**31 - 1))
def test_keys_have_the_values_of_the_bytes(key: int) -> None:
    change = _change(SHAPE, "c", after=[b"%d" % key, *[None] * 5])
    data = compile_key(SHAPE, 1)(change)
    assert data is not None
    assert SHAPE.key_schema is not None
    assert writer(SHAPE.key_schema)(row_values(SHAPE, VERSION).key(change)) == data[5:]


def test_a_key_that_is_not_known_is_refused() -> None:
    with pytest.raises(TableError, match="could get one key"):
        row_values(SHAPE, VERSION).key(_change(SHAPE, "c", after=[UNCHANGED, *[None] * 5]))


def test_what_the_schema_cannot_hold_is_in_a_header() -> None:
    change = _change(SHAPE, "c", after=[b"1", None, b"NaN", b"infinity", None, None])
    row_values(SHAPE, VERSION).envelope(change, NOW)
    assert json.loads(dict(change.headers)["cdc.text"]) == {"price": "NaN", "amount": None}
