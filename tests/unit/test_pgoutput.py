"""pgoutput's messages, written by an encoder of the test's own, read back; and garbage is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.postgres import pgoutput
from cdc.record import UNCHANGED

text = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
value = st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=300))
lsn = st.integers(0, 2**64 - 1)


def encode_tuple(row: list[object]) -> bytes:
    out = [struct.pack(">H", len(row))]
    for column in row:
        if column is None:
            out.append(b"n")
        elif column is UNCHANGED:
            out.append(b"u")
        else:
            assert isinstance(column, bytes)
            out.append(b"t" + struct.pack(">I", len(column)) + column)
    return b"".join(out)


@given(st.lists(value, max_size=12))
def test_a_tuple_comes_back_as_it_was(row: list[object]) -> None:
    encoded = b"junk" + encode_tuple(row)
    assert pgoutput.read_tuple(encoded, 4) == (row, len(encoded), sum(column is UNCHANGED for column in row))


@given(st.lists(value, min_size=1, max_size=6), st.integers(1, 100))
def test_a_truncated_tuple_is_refused_or_ends_beyond_the_buffer(row: list[object], cut: int) -> None:
    encoded = encode_tuple(row)
    short = encoded[: max(0, len(encoded) - cut)]
    try:
        _, end, _ = pgoutput.read_tuple(short, 0)
    except pgoutput.ProtocolError:
        return
    assert end > len(short)


def test_a_lying_length_allocates_nothing_and_ends_beyond_the_buffer() -> None:
    lying = b"\x00\x01t\xff\xff\xff\xffabc"
    row, end, _ = pgoutput.read_tuple(lying, 0)
    assert row == [b"abc"]
    assert end > len(lying)


def test_a_binary_column_is_refused_by_kind() -> None:
    with pytest.raises(pgoutput.ProtocolError, match="kind 'b'"):
        pgoutput.read_tuple(b"\x00\x01b\x00\x00\x00\x01x", 0)


@given(st.binary(max_size=80))
def test_garbage_is_an_error_and_nothing_else(payload: bytes) -> None:
    for read in (
        pgoutput.read_begin,
        pgoutput.read_commit,
        pgoutput.read_relation,
        pgoutput.read_truncate,
        pgoutput.read_message,
        pgoutput.read_keepalive,
    ):
        try:
            read(payload)
        except pgoutput.ProtocolError:
            continue


@given(lsn, st.integers(-(2**40), 2**40), st.integers(0, 2**32 - 1))
def test_begin(commit_lsn: int, us: int, xid: int) -> None:
    payload = b"B" + struct.pack(">QqI", commit_lsn, us, xid)
    assert pgoutput.read_begin(payload) == (commit_lsn, us + pgoutput.POSTGRES_EPOCH_US, xid)


@given(
    st.integers(0, 2**32 - 1),
    text,
    text,
    st.sampled_from("dnfi"),
    st.lists(st.tuples(text, st.integers(0, 2**32 - 1), st.integers(-1, 2**31 - 1), st.booleans()), max_size=8),
)
def test_relation_keeps_unsigned_oids_and_every_name(
    oid: int, schema: str, name: str, identity: str, columns: list[tuple[str, int, int, bool]]
) -> None:
    payload = b"R" + struct.pack(">I", oid) + schema.encode() + b"\0" + name.encode() + b"\0" + identity.encode()
    payload += struct.pack(">H", len(columns))
    for column, type_oid, typmod, key in columns:
        payload += bytes([key]) + column.encode() + b"\0" + struct.pack(">Ii", type_oid, typmod)
    relation = pgoutput.read_relation(payload)
    assert (relation.oid, relation.schema, relation.name) == (oid, schema or "pg_catalog", name)
    assert [tuple(column) for column in relation.columns] == columns
    with pytest.raises(pgoutput.ProtocolError):
        pgoutput.read_relation(payload + b"x")


def test_truncate_names_all_tables_of_a_cascade() -> None:
    payload = b"T" + struct.pack(">IB", 2, 3) + struct.pack(">II", 7, 4_000_000_000)
    assert pgoutput.read_truncate(payload) == ((7, 4_000_000_000), True, True)


@given(st.booleans(), lsn, text, st.binary(max_size=100))
def test_logical_message(transactional: bool, at: int, prefix: str, content: bytes) -> None:
    payload = b"M" + struct.pack(">BQ", transactional, at) + prefix.encode() + b"\0"
    payload += struct.pack(">I", len(content)) + content
    assert pgoutput.read_message(payload) == (transactional, at, prefix, content)


@given(lsn)
def test_an_lsn_comes_back_from_its_text(at: int) -> None:
    assert pgoutput.parse_lsn(pgoutput.format_lsn(at)) == at


def test_status_update_has_the_layout_of_the_manual() -> None:
    message = pgoutput.status_update(3, 2, 1, pgoutput.POSTGRES_EPOCH_US + 5, reply=True)
    assert message == b"r" + struct.pack(">QQQqB", 3, 2, 1, 5, 1)
