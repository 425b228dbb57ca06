"""COPY's text format, escaped as the manual says, read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import FatalError
from cdc.postgres.copytext import parse_row

_ESCAPES = {
    b"\\"[0]: b"\\\\",
    b"\b"[0]: b"\\b",
    b"\f"[0]: b"\\f",
    b"\n"[0]: b"\\n",
    b"\r"[0]: b"\\r",
    b"\t"[0]: b"\\t",
    b"\v"[0]: b"\\v",
}


def escape(value: bytes | None) -> bytes:
    return rb"\N" if value is None else b"".join(_ESCAPES.get(byte, bytes([byte])) for byte in value)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=30)), min_size=1, max_size=8))
def test_a_row_comes_back_as_it_was(row: list[bytes | None]) -> None:
    assert parse_row(b"\t".join(map(escape, row)), len(row)) == row


def test_the_text_backslash_N_is_not_null() -> None:
    assert parse_row(rb"\\N" + b"\t" + rb"\N" + b"\t", 3) == [rb"\N", None, b""]


def test_octal_and_hex_escapes() -> None:
    assert parse_row(rb"\x41\101\q", 1) == [b"AAq"]


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(FatalError, match="2 columns, 3 were asked"):
        parse_row(b"a\tb", 3)
