"""pgoutput, protocol version 1, text format: bytes → messages. Pure: no I/O, no state.

The layouts are those of the Postgres manual, "Logical Replication Message Formats" and "Streaming Replication
Protocol". Every function checks what it reads against the length of the buffer: truncated or lying input
raises `ProtocolError`, whatever it claims about its own size.

Row messages are not made into objects: `read_tuple` splits a tuple into the list of its columns' text, and the caller
looks at the few bytes around it. That is all that happens to a row before it is encoded for Kafka.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from struct import error as _StructError
from typing import Final, NamedTuple

from cdc.errors import FatalError
from cdc.record import UNCHANGED, RawRow

__all__ = [
    "BEGIN",
    "COMMIT",
    "DELETE",
    "INSERT",
    "KEEPALIVE",
    "MESSAGE",
    "ORIGIN",
    "RELATION",
    "STREAM_ABORT",
    "TRUNCATE",
    "TYPE",
    "UPDATE",
    "XLOG_DATA",
    "Begin",
    "Commit",
    "Keepalive",
    "LogicalMessage",
    "ProtocolError",
    "Relation",
    "RelationColumn",
    "Truncate",
    "format_lsn",
    "parse_lsn",
    "read_begin",
    "read_commit",
    "read_keepalive",
    "read_message",
    "read_relation",
    "read_truncate",
    "read_tuple",
    "status_update",
]

XLOG_DATA: Final = ord("w")
KEEPALIVE: Final = ord("k")

BEGIN: Final = ord("B")
COMMIT: Final = ord("C")
ORIGIN: Final = ord("O")
RELATION: Final = ord("R")
TYPE: Final = ord("Y")
INSERT: Final = ord("I")
UPDATE: Final = ord("U")
DELETE: Final = ord("D")
TRUNCATE: Final = ord("T")
MESSAGE: Final = ord("M")
STREAM_ABORT: Final = ord("A")

POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01 00:00 UTC in microseconds since 1970: the zero of Postgres's timestamps."""

_BEGIN: Final = Struct(">QqI")
_COMMIT: Final = Struct(">BQQq")
_KEEPALIVE: Final = Struct(">QqB")
_RELATION_COLUMN: Final = Struct(">Ii")
_STATUS: Final = Struct(">cQQQqB")
_U32: Final = Struct(">I")
_U16: Final = Struct(">H")
_LENGTH: Final = _U32.unpack_from

_TEXT: Final = ord("t")
_NULL: Final = ord("n")
_UNCHANGED_TOAST: Final = ord("u")


class ProtocolError(FatalError):
    """The server sent what the protocol does not allow. Nothing is guessed: the stream stops here."""


class Begin(NamedTuple):
    """Start of a transaction. ``commit_us`` is in microseconds since 1970 UTC; ``xid`` has 32 bits."""

    commit_lsn: int
    commit_us: int
    xid: int


class Commit(NamedTuple):
    """End of a transaction. ``end_lsn`` is where the WAL after it begins: the LSN to acknowledge."""

    commit_lsn: int
    end_lsn: int
    commit_us: int


class Keepalive(NamedTuple):
    """``wal_end``: everything before it has been sent."""

    wal_end: int
    reply_requested: bool


class RelationColumn(NamedTuple):
    name: str
    type_oid: int
    typmod: int
    is_key: bool
    """Part of the replica identity (every column when it is FULL)."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when the rows that follow were written. ``replica_identity`` is ``d n f i``."""

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[RelationColumn, ...]


class Truncate(NamedTuple):
    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class LogicalMessage(NamedTuple):
    """What `pg_logical_emit_message` wrote."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


def parse_lsn(text: str) -> int:
    """``16/B374D848`` → 64-bit integer. `ValueError` for anything else."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError(f"not an LSN: {text!r}; expected a form like 16/B374D848")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(lsn: int) -> str:
    """64-bit integer → ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def read_begin(payload: bytes) -> Begin:
    if len(payload) != 1 + _BEGIN.size:
        raise _wrong_length("Begin", payload)
    lsn, us, xid = _BEGIN.unpack_from(payload, 1)
    return Begin(lsn, us + POSTGRES_EPOCH_US, xid)


def read_commit(payload: bytes) -> Commit:
    if len(payload) != 1 + _COMMIT.size:
        raise _wrong_length("Commit", payload)
    _flags, lsn, end_lsn, us = _COMMIT.unpack_from(payload, 1)
    return Commit(lsn, end_lsn, us + POSTGRES_EPOCH_US)


def read_keepalive(frame: bytes) -> Keepalive:
    """A whole ``k`` frame of the replication protocol."""
    if len(frame) != 1 + _KEEPALIVE.size:
        raise _wrong_length("keepalive", frame)
    wal_end, _clock, reply = _KEEPALIVE.unpack_from(frame, 1)
    return Keepalive(wal_end, reply == 1)


def read_relation(payload: bytes) -> Relation:
    try:
        (oid,) = _U32.unpack_from(payload, 1)
        schema, pos = _read_string(payload, 5)
        name, pos = _read_string(payload, pos)
        identity = chr(payload[pos])
        (count,) = _U16.unpack_from(payload, pos + 1)
        pos += 3
        columns = []
        for _ in range(count):
            flags = payload[pos]
            column, pos = _read_string(payload, pos + 1)
            type_oid, typmod = _RELATION_COLUMN.unpack_from(payload, pos)
            pos += _RELATION_COLUMN.size
            columns.append(RelationColumn(column, type_oid, typmod, bool(flags & 1)))
    except (IndexError, ValueError, _StructError) as error:
        raise ProtocolError(f"a Relation message of {len(payload)} bytes cannot be read: {error}") from error
    if pos != len(payload):
        raise _wrong_length("Relation", payload)
    # An empty namespace stands for pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns))


def read_truncate(payload: bytes) -> Truncate:
    if len(payload) < 6:
        raise _wrong_length("Truncate", payload)
    (count,) = _U32.unpack_from(payload, 1)
    if len(payload) != 6 + 4 * count:
        raise _wrong_length("Truncate", payload)
    options = payload[5]
    oids = tuple(_U32.unpack_from(payload, 6 + 4 * i)[0] for i in range(count))
    return Truncate(oids, bool(options & 1), bool(options & 2))


def read_message(payload: bytes) -> LogicalMessage:
    try:
        flags = payload[1]
        lsn = int.from_bytes(payload[2:10], "big")
        end = payload.index(0, 10)
        # A database in SQL_ASCII holds whatever bytes its clients sent.
        prefix, pos = payload[10:end].decode("utf-8", "replace"), end + 1
        (length,) = _U32.unpack_from(payload, pos)
    except (IndexError, ValueError, _StructError) as error:
        raise ProtocolError(f"a logical message of {len(payload)} bytes cannot be read: {error}") from error
    if pos + 4 + length != len(payload):
        raise _wrong_length("logical message", payload)
    return LogicalMessage(bool(flags & 1), lsn, prefix, payload[pos + 4 :])


def read_tuple(payload: bytes, pos: int) -> tuple[RawRow, int, int]:
    """The tuple at ``pos``: its columns, where it ends, and how many columns are `UNCHANGED`.

    The end may lie beyond the buffer when the message lies about a length: the caller compares it with the message's
    length, once for all its tuples.
    """
    row: RawRow = []
    append = row.append
    unchanged = 0
    try:
        count = (payload[pos] << 8) | payload[pos + 1]
        pos += 2
        for _ in range(count):
            tag = payload[pos]
            if tag == _TEXT:
                start = pos + 5
                pos = start + _LENGTH(payload, pos + 1)[0]
                append(payload[start:pos])
            elif tag == _NULL:
                append(None)
                pos += 1
            elif tag == _UNCHANGED_TOAST:
                append(UNCHANGED)
                unchanged += 1
                pos += 1
            else:
                raise ProtocolError(
                    f"a column has the kind {chr(tag)!r} at byte {pos} of a row message; expected n, t or u. "
                    "The stream was started in text format: a proxy or another protocol version is between"
                )
    except (IndexError, _StructError) as error:
        raise ProtocolError(f"a row message of {len(payload)} bytes ends inside a column at byte {pos}") from error
    return row, pos, unchanged


def status_update(write: int, flush: int, apply: int, clock_us: int, *, reply: bool = False) -> bytes:
    """The client's standby status update. ``clock_us`` is in microseconds since 1970 UTC."""
    return _STATUS.pack(b"r", write, flush, apply, clock_us - POSTGRES_EPOCH_US, 1 if reply else 0)


def _read_string(payload: bytes, pos: int) -> tuple[str, int]:
    end = payload.index(0, pos)
    return payload[pos:end].decode("utf-8"), end + 1


def _wrong_length(what: str, payload: bytes) -> ProtocolError:
    return ProtocolError(f"a {what} message has {len(payload)} bytes, which does not fit what it says of itself")
