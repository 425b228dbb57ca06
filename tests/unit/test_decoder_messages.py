"""What the decoder does with messages that are not rows: those it must pass over, those it must not."""

from __future__ import annotations

import pytest

from cdc.codec.envelope import row_shape
from cdc.postgres.captured_table import CapturedTable
from cdc.postgres.changes import Decoder
from cdc.postgres.pgoutput import ProtocolError, Relation
from cdc.postgres.position import StoredPosition, Tracker
from cdc.postgres.touched import DatabaseSnapshot, TouchLog
from cdc.record import Column, RowChange, Schema


class Nothing:
    def captured(self, _relation: Relation) -> CapturedTable | None:
        return None


def decoder() -> Decoder:
    tracker = Tracker(StoredPosition(1, 0, None, None, {}), 0.0)
    return Decoder(Nothing(), tracker, TouchLog(), 1, None)


def frame(payload: bytes) -> bytes:
    return b"w" + bytes(24) + payload


BEGIN = frame(b"B" + (100).to_bytes(8, "big") + bytes(8) + (7).to_bytes(4, "big"))
COMMIT = frame(b"C\x00" + (100).to_bytes(8, "big") + (108).to_bytes(8, "big") + bytes(8))
MESSAGE = b"M\x01" + bytes(8) + b"pre\xfffix\x00" + (3).to_bytes(4, "big") + b"\x00\xff\xfe"


def test_origins_types_and_stray_aborts_are_passed_over() -> None:
    made = decoder()
    others = [frame(b"O" + bytes(8) + b"o\x00"), frame(b"Y" + bytes(4) + b"\x00t\x00"), frame(b"A" + bytes(8))]
    assert made.feed([BEGIN, *others, COMMIT, *others[2:]]) == []
    assert made.commits == 1


def test_a_message_of_any_bytes_is_counted_and_told_to_nobody() -> None:
    made = decoder()
    assert made.feed([BEGIN, frame(MESSAGE), frame(MESSAGE.replace(b"M\x01", b"M\x00")), COMMIT]) == []
    assert made._ordinal == 1


@pytest.mark.parametrize("kind", [b"S", b"E", b"c", b"b", b"P", b"K", b"r", b"p", b"\xff"])
def test_what_protocol_version_1_does_not_have_stops_the_stream(kind: bytes) -> None:
    with pytest.raises(ProtocolError, match="which protocol version 1 does not have"):
        decoder().feed([BEGIN, frame(kind + bytes(20))])


class OneTable:
    def captured(self, relation: Relation) -> CapturedTable | None:
        columns = tuple(Column(name, Schema("string"), "text", ()) for name in ("id", "v"))
        shape = row_shape(topic="p.s.t", db="d", schema="s", table="t", columns=columns, key=(0,), server="p")
        return CapturedTable(relation.oid, shape, 2)


def a_row(*values: bytes) -> bytes:
    return len(values).to_bytes(2, "big") + b"".join(b"t" + len(v).to_bytes(4, "big") + v for v in values)


RELATION = frame(
    b"R" + (9).to_bytes(4, "big") + b"s\x00t\x00f" + (2).to_bytes(2, "big")
    + b"\x01id\x00" + (25).to_bytes(4, "big") + b"\xff" * 4 + b"\x00v\x00" + (25).to_bytes(4, "big") + b"\xff" * 4
)  # fmt: skip
OID = (9).to_bytes(4, "big")
UPDATE = frame(b"U" + OID + b"O" + a_row(b"1", b"x") + b"N" + a_row(b"1", b"y"))
UNCHANGED_UPDATE = frame(b"U" + OID + b"O" + a_row(b"1", b"x") + b"N" + a_row(b"1", b"x"))


def test_an_insert_can_lack_large_values() -> None:
    """An UPDATE that brings a row into the publication's row filter is told as an INSERT, without unchanged TOAST."""
    made = Decoder(OneTable(), Tracker(StoredPosition(1, 0, None, None, {}), 0.0), TouchLog(), 1, None)
    insert = frame(b"I" + OID + b"N" + (2).to_bytes(2, "big") + b"t" + (1).to_bytes(4, "big") + b"1" + b"u")
    (change,) = made.feed([BEGIN, RELATION, insert])
    assert [(item.change, item.columns) for item in made.reselects] == [(change, [1])]


@pytest.mark.parametrize(
    ("message", "skipped", "skip_unchanged", "told"),
    [
        (UPDATE, "", True, True),
        (UNCHANGED_UPDATE, "", True, False),
        (UPDATE, "u", False, False),
        (frame(b"I" + OID + b"N" + a_row(b"1", b"x")), "c", False, False),
        (frame(b"D" + OID + b"O" + a_row(b"1", b"x")), "d", False, False),
    ],
)
def test_a_change_that_is_not_told_does_not_hide_the_row_of_a_snapshot(
    message: bytes, skipped: str, skip_unchanged: bool, told: bool
) -> None:
    touched = TouchLog()
    touched.tables.add(9)
    tracker = Tracker(StoredPosition(1, 0, None, None, {}), 0.0)
    made = Decoder(OneTable(), tracker, touched, 1, None, skipped=frozenset(skipped), skip_unchanged=skip_unchanged)
    records = [change for change in made.feed([BEGIN, RELATION, message]) if isinstance(change, RowChange)]
    assert bool(records) == told
    assert touched.newer(DatabaseSnapshot(1, 1, frozenset()), 9) == ({(b"1",)} if told else set())
