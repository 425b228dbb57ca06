"""From rows as Postgres sent them to Avro bytes, by functions generated from row shapes.

The source of a function has one stretch of code per column and is compiled once per shape::

    e0 = t0[c0]                              # int: by table, NULL included
    if c1 is None or c1 is U:                # text: its length, then itself
        e1 = m1; c1 = E
    else:
        if not c1.isascii(): c1.decode()
        n = len(c1); e1 = s1[n] if n < 4096 else long1(n)
    e2 = m2 if c2 is None else z2 if c2 is U else f2(c2)
    if e2 is None: e2 = inexact(2, c2, notes)
    return join((e0, e1, c1, e2))

Only numbers are put into the source: names and texts of a user never are, what a stretch needs is an object in the
function's globals.

A row that the generated function cannot take (garbage, NULL where the schema says NOT NULL) goes through the reference
column by column (`cdc.codec.avro_columns.reference`), which either has the right bytes or knows whose fault it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from cdc.codec.avro_binary import long_bytes
from cdc.codec.avro_columns import fillers, reference, step
from cdc.codec.connect_rows import SourceConstants
from cdc.errors import DataError, TableError
from cdc.plugin import KeyEncoder, ValueEncoder
from cdc.record import (
    HEADER_TEXT,
    HEADER_UNKNOWN,
    UNCHANGED,
    Column,
    RawRow,
    RowChange,
    RowShape,
    Schema,
    Transaction,
    TransactionBlock,
)

__all__ = ["compile_key", "compile_value"]

Notes = dict[int, str | None]
"""Column → its exact text (``None`` for NULL), where the bytes are not exact."""
_Row = Callable[[RawRow, Notes], bytes]
_Image = Literal["old", "new", "key"]
"""What a row is: in an old image any column may be missing, in a key none may be missing or unchanged."""

_FAULTS = (ValueError, TypeError, AttributeError, LookupError)
"""What generated code may raise for a row it cannot take."""


def compile_value(shape: RowShape, writer_id: int, version: str) -> ValueEncoder:
    """The encoder of values of ``shape``: magic byte, ``writer_id``, Debezium's envelope, with our ``version`` in it.

    The encoder answers ``None`` for a tombstone. It adds to ``change.headers`` what the schema has no place for:
    ``cdc.unknown`` from ``change.unknown``, and ``cdc.text`` for values of the new row that are not exact (JSON null
    for a NULL that came before the column was NOT NULL). `DataError` names topic, column and kind of what Postgres
    cannot have printed.
    """
    columns, topic = shape.columns, shape.topic
    encode_old, encode_new = _row(columns, topic, "old"), _row(columns, topic, "new")
    names = [column.name for column in columns]
    head = b"\x00" + writer_id.to_bytes(4, "big")
    without_old, with_old = head + b"\x00\x02", head + b"\x02"
    neither = head + b"\x00\x00"
    ends = {op: b"\x00\x00\x00\x00" + _text(op) for op in ("c", "u", "d", "r", "t")}
    tx_parts = _transaction_parts(shape, SourceConstants(version, shape.server))
    plan = object()
    now, times = -1, b""
    join = b"".join

    def encode(change: RowChange, now_us: int) -> bytes | None:
        nonlocal now, times
        if not change.op:
            return None
        if now_us != now:
            times = b"\x02%b\x02%b\x02%b" % _times(now_us)
            now = now_us
        tx = change.tx
        key: Any = plan if change.marker is None else (plan, change.marker)
        parts = tx.plans.get(key)
        if parts is None:
            parts = tx.plans[key] = tx_parts(tx, change.marker)
        first, sequence, second, overhead = parts
        lsn = b'%d"]' % change.lsn
        size, number = long_bytes(overhead + len(lsn)), long_bytes(change.lsn)
        end = ends[change.op] if change.block is None else _end_with_block(change.op, change.block)
        before, after = change.before, change.after
        if after is not None:
            notes: Notes = {}
            new = encode_new(after, notes)
            if notes:
                _add_header(change, HEADER_TEXT, {names[at]: text for at, text in sorted(notes.items())})
            if change.unknown:
                _add_header(change, HEADER_UNKNOWN, list(change.unknown))
            if before is None:
                return join((without_old, new, first, size, sequence, lsn, second, number, end, times))
            old = encode_old(before, {})
            return join((with_old, old, b"\x02", new, first, size, sequence, lsn, second, number, end, times))
        if before is None:
            return join((neither, first, size, sequence, lsn, second, number, end, times))
        old = encode_old(before, {})
        return join((with_old, old, b"\x00", first, size, sequence, lsn, second, number, end, times))

    return encode


def compile_key(shape: RowShape, writer_id: int, key_schema: Schema | None = None) -> KeyEncoder:
    """The encoder of keys of ``shape``, taken from ``change.key_row``; ``None`` where there is no key.

    ``key_schema`` is another version of the shape's key schema, with the same names and types: bytes follow it (a
    default turns the branches of a union round). A key that is not exact, or not known, is a `TableError`: two rows
    could share it.
    """
    schema = key_schema or shape.key_schema
    if schema is None:
        return lambda _change: None
    columns = [
        Column(column.name, field.schema, column.kind, column.params)
        for column, field in zip((shape.columns[index] for index in shape.key), schema.fields, strict=True)
    ]
    encode_row = _row(columns, shape.topic, "key", places=shape.key, width=len(shape.columns))
    head = b"\x00" + writer_id.to_bytes(4, "big")

    def encode(change: RowChange) -> bytes | None:
        row = change.key_row
        if row is None:
            return None
        notes: Notes = {}
        key = encode_row(row, notes)
        if notes:
            raise _bad_key(shape, row)
        return head + key

    return encode


def _bad_key(shape: RowShape, row: RawRow) -> TableError:
    values = ", ".join(f"{shape.columns[index].name!r} = {_shown(row[index])}" for index in shape.key)
    return TableError(
        f"{shape.topic}: the record key ({values}) is not known or not exact in its schema, so two rows could get one "
        "key. Give the column a type that is exact (numeric with a scale)"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    return "unknown (unchanged TOAST)" if value is UNCHANGED else repr(value[:60].decode("utf-8", "replace"))


def _row(
    columns: Sequence[Column], topic: str, image: _Image, places: Sequence[int] | None = None, width: int = 0
) -> _Row:
    """The encoder of one row image; with ``places`` of some columns of a wider row."""
    fast = _generate(columns, image, places, width)
    slow = _by_reference(columns, topic, image, places, width or len(columns))

    def encode(row: RawRow, notes: Notes) -> bytes:
        try:
            return fast(row, notes)
        except _FAULTS:
            notes.clear()
            return slow(row, notes)

    return encode


def _generate(columns: Sequence[Column], image: _Image, places: Sequence[int] | None, width: int) -> _Row:
    objects: dict[str, Any] = {"U": UNCHANGED, "E": b"", "join": b"".join, "inexact": _inexact(columns)}
    lines = ["def encode(row, notes):"]
    if places is None:
        lines.append(f" [{', '.join(f'c{at}' for at in range(len(columns)))}] = row")
    else:
        lines.append(f" if len(row) != {width}: raise ValueError")
        lines += [f" c{at} = row[{place}]" for at, place in enumerate(places)]
    parts = []
    for at, column in enumerate(columns):
        filler, how = fillers(column), step(column)
        objects |= {f"o{at}": how.object, f"m{at}": filler.missing, f"z{at}": filler.unchanged}
        fills = image == "old" or column.schema.optional
        parts.append(f"e{at}")
        if image == "key":
            lines.append(f" if c{at} is U: raise ValueError")
        if how.pattern == "table":
            missing = f"m{at} if c{at} is None else " if fills and not column.schema.optional else ""
            lines.append(f" e{at} = {missing}o{at}[c{at}]")
        elif how.pattern == "text":
            objects[f"l{at}"] = _long_length(how.object[0][:-1])
            if fills:
                lines.append(f" if c{at} is None: e{at} = m{at}; c{at} = E")
            lines += [
                f" {'elif' if fills else 'if'} c{at} is U: e{at} = z{at}; c{at} = E",
                " else:",
                f"  if not c{at}.isascii(): c{at}.decode()",
                f"  n = len(c{at}); e{at} = o{at}[n] if n < 4096 else l{at}(n)",
            ]
            parts.append(f"c{at}")
        else:
            missing = f"m{at} if c{at} is None else " if fills else ""
            lines += [
                f" e{at} = {missing}z{at} if c{at} is U else o{at}(c{at})",
                f" if e{at} is None: e{at} = inexact({at}, c{at}, notes)",
            ]
    lines.append(f" return join(({''.join(f'{part}, ' for part in parts)}))")
    exec(compile("\n".join(lines), "<row encoder>", "exec"), objects)  # noqa: S102 - made of numbers alone, see above
    made: _Row = objects["encode"]
    return made


def _long_length(prefix: bytes) -> Callable[[int], bytes]:
    return lambda size: prefix + long_bytes(size)


def _inexact(columns: Sequence[Column]) -> Callable[[int, bytes, Notes], bytes]:
    encoders = [reference(column) for column in columns]

    def encode(at: int, text: bytes, notes: Notes) -> bytes:
        data, notes[at] = encoders[at](text)
        return data

    return encode


def _by_reference(
    columns: Sequence[Column], topic: str, image: _Image, places: Sequence[int] | None, width: int
) -> _Row:
    encoders = [(column, fillers(column), reference(column)) for column in columns]

    def encode(row: RawRow, notes: Notes) -> bytes:
        if len(row) != width:
            raise DataError(f"{topic}: a row of {len(row)} values where the table has {width} columns")
        parts = []
        values = row if places is None else [row[place] for place in places]
        for at, ((column, filler, one), text) in enumerate(zip(encoders, values, strict=True)):
            if text is None:
                parts.append(filler.missing)
                if image != "old" and not column.schema.optional:
                    notes[at] = None
            elif text is UNCHANGED:
                parts.append(filler.unchanged)
                if image == "key":
                    notes[at] = None
            else:
                try:
                    data, exact = one(text)
                except ValueError as fault:
                    raise DataError(
                        f"{topic}: column {column.name!r} of type {column.schema.name or column.schema.type}: {fault}. "
                        "The text is not what Postgres prints for this type; has the table changed?"
                    ) from fault
                parts.append(data)
                if exact is not None:
                    notes[at] = exact
        return b"".join(parts)

    return encode


def _transaction_parts(
    shape: RowShape, source: SourceConstants
) -> Callable[[Transaction, str | None], tuple[bytes, bytes, bytes, int]]:
    """What the records of one transaction share: source up to sequence, its beginning, from sequence to lsn."""
    constants = _text(source.version) + _text(source.connector) + _text(source.name)
    database = _text(shape.db)
    names = _text(shape.schema) + _text(shape.table)

    def parts(tx: Transaction, marker: str | None) -> tuple[bytes, bytes, bytes, int]:
        ms, us, ns = _times(tx.commit_us)
        # Debezium leaves the marker of a streamed record unset: Confluent's converter then writes the schema's default.
        snapshot = b"\x00" + _text(marker or "false")
        last = b"null" if tx.last_commit_lsn is None else b'"%d"' % tx.last_commit_lsn
        sequence = b'[%b,"' % last
        xid = b"\x00" if tx.xid is None else b"\x02" + long_bytes(tx.xid)
        second = b"\x02%b\x02%b%b%b\x02" % (us, ns, names, xid)
        return constants + ms + snapshot + database + b"\x02", sequence, second, len(sequence)

    return parts


def _end_with_block(op: str, block: TransactionBlock) -> bytes:
    """From ``xmin`` to ``op``, where there is a transaction block."""
    orders = long_bytes(block.total_order) + long_bytes(block.data_collection_order)
    return b"\x00\x00\x00\x02" + _text(block.id) + orders + _text(op)


def _times(micros: int) -> tuple[bytes, bytes, bytes]:
    """Milli-, micro- and nanoseconds of one instant. `DataError` for one whose nanoseconds exceed 64 bits."""
    nanos = micros * 1000
    if not -(2**63) <= nanos < 2**63:
        raise DataError(
            f"a time of {micros} microseconds since 1970 does not fit Debezium's ts_ns; is the clock right?"
        )
    return long_bytes(micros // 1000), long_bytes(micros), long_bytes(nanos)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return long_bytes(len(data)) + data


def _add_header(change: RowChange, name: str, value: Any) -> None:
    """Add a header in JSON, once: a change may be encoded again after a failed send."""
    kept = [header for header in change.headers if header[0] != name]
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    change.headers = (*kept, (name, data))
