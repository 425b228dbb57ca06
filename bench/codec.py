"""µs per row of the Avro encoders, beside fastavro with the same values, in the same run.

    python bench/codec.py [rows]

The rows are those of a customers table: 9 columns of mixed types, 230 bytes of text. Bytes are compared with fastavro's
before anything is measured. fastavro gets ready-made Python values, so its figure is without the reading of
Postgres's text; "read + fastavro" is with it.
"""

from __future__ import annotations

import gc
import io
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro

from cdc.codec.avro_rows import compile_key, compile_value
from cdc.codec.connect_avro import avro_schema
from cdc.codec.envelope import row_shape
from cdc.codec.values import reader
from cdc.postgres.types import TypeModes, resolve
from cdc.record import Column, RowChange, Transaction

RUNS = 7
NUMERIC_10_2 = (10 << 16 | 2) + 4
COLUMNS = [
    ("id", 20, -1, False),
    ("email", 25, -1, False),
    ("name", 25, -1, True),
    ("balance", 1700, NUMERIC_10_2, True),
    ("visits", 23, -1, False),
    ("updated_at", 1184, -1, False),
    ("profile", 3802, -1, True),
    ("active", 16, -1, False),
    ("birthday", 1082, -1, True),
]
NOW = 1_760_000_000_000_000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    columns = []
    for name, oid, typmod, optional in COLUMNS:
        mapping = resolve(oid, typmod, {}, TypeModes())
        columns.append(Column(name, replace(mapping.schema, optional=optional), mapping.kind, mapping.params))
    shape = row_shape("shop.public.customers", "shop", "public", "customers", columns, [0], "shop")
    encode_key, encode_value = compile_key(shape, 1), compile_value(shape, 2, "0.1.0")

    rows = _rows(count)
    changes = []
    for at, row in enumerate(rows):
        if at % 300 == 0:
            tx = Transaction(1, 30_000_000_000 + at * 400, NOW - 5_000_000 + at, 900 + at // 300, 29_999_999_000)
        old = [row[0], *[None] * 8] if at % 3 == 2 else None
        change = RowChange(shape, "cud"[at % 3], row, old, None if at % 3 == 2 else row, tx, 30_000_000_000 + at, at, 0)
        changes.append(change)
    inserts = [change for change in changes if change.after is not None]

    readers = [reader(column.kind, column.params) for column in columns]
    read = [_values(change, readers) for change in inserts]
    schema = fastavro.parse_schema(avro_schema(shape.envelope_schema))
    key_schema = fastavro.parse_schema(avro_schema(shape.key_schema)) if shape.key_schema else None
    for change, value in zip(inserts, read, strict=True):
        same = encode_value(change, NOW) == b"\x00\x00\x00\x00\x02" + _fastavro(schema, value)
        key = {"id": value["after"]["id"]}
        if not same or encode_key(change) != b"\x00\x00\x00\x00\x01" + _fastavro(key_schema, key):
            sys.exit(f"bytes differ from fastavro's at {change.key_row}")

    size = statistics.mean(sum(len(text) for text in row if text) for row in rows)
    wire = statistics.mean(len(encode_value(change, NOW) or b"") for change in inserts)
    print(f"{count} rows of 9 columns, {size:.0f} bytes of text; a value is {wire:.0f} bytes; median of {RUNS} runs")
    deletes = [change for change in changes if change.after is None]
    figures: dict[str, tuple[Callable[[], Any], int]] = {
        "key": (lambda: [encode_key(change) for change in changes], len(changes)),
        "value, insert or update": (lambda: [encode_value(change, NOW) for change in inserts], len(inserts)),
        "value, delete": (lambda: [encode_value(change, NOW) for change in deletes], len(deletes)),
        "value, another clock each": (
            lambda: [encode_value(change, NOW + at) for at, change in enumerate(inserts)],
            len(inserts),
        ),
        "fastavro, from values": (lambda: [_fastavro(schema, value) for value in read], len(inserts)),
        "read + fastavro": (
            lambda: [_fastavro(schema, _values(change, readers)) for change in inserts],
            len(inserts),
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in figures}
    gc.freeze()
    for _ in range(RUNS):
        for name, (run, rows_run) in figures.items():
            start = time.process_time()
            run()
            times[name].append((time.process_time() - start) / rows_run * 1e6)
    for name, runs in times.items():
        print(f"{name:28} {statistics.median(runs):7.2f} µs/row  (best {min(runs):.2f}, worst {max(runs):.2f})")


def _rows(count: int) -> list[list[bytes | None]]:
    rng = random.Random(1)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows: list[list[bytes | None]] = []
    for at in range(count):
        moment = start + timedelta(seconds=rng.randrange(60_000_000), microseconds=rng.randrange(10**6))
        stamp = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond:06d}".rstrip("0").rstrip(".") + "+00"
        profile = (
            f'{{"tier": "{rng.choice(["gold", "silver"])}", "score": {rng.random():.6f}, '
            f'"tags": ["a{rng.randrange(99)}", "birds"], "note": "żółw {rng.randrange(10**9)}, likes herons"}}'
        )
        rows.append(
            [
                b"%d" % (100_000 + at),
                f"customer{at}@mail{rng.randrange(100)}.example.com".encode(),
                f"Firstname{rng.randrange(10**6)} Lastname{rng.randrange(10**9)}".encode(),
                f"{rng.randrange(10**7) / 100:.2f}".encode() if rng.random() > 0.1 else None,
                b"%d" % rng.randrange(20_000),
                stamp.encode(),
                profile.encode(),
                rng.choice([b"t", b"f"]),
                f"{start - timedelta(days=rng.randrange(30_000)):%Y-%m-%d}".encode(),
            ]
        )
    return rows


def _values(change: RowChange, readers: list[Callable[[bytes], Any]]) -> dict[str, Any]:
    after = {
        column.name: None if text is None else read(text)
        for column, read, text in zip(change.shape.columns, readers, change.after or [], strict=True)
    }
    tx = change.tx
    source = {
        "version": "0.1.0", "connector": "postgresql", "name": "shop", "ts_ms": tx.commit_us // 1000,
        "snapshot": "false", "db": "shop", "sequence": f'["{tx.last_commit_lsn}","{change.lsn}"]',
        "ts_us": tx.commit_us, "ts_ns": tx.commit_us * 1000, "schema": "public", "table": "customers",
        "txId": tx.xid, "lsn": change.lsn, "xmin": None, "origin": None, "origin_lsn": None,
    }  # fmt: skip
    return {
        "before": None, "after": after, "source": source, "transaction": None, "op": change.op,
        "ts_ms": NOW // 1000, "ts_us": NOW, "ts_ns": NOW * 1000,
    }  # fmt: skip


def _fastavro(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


if __name__ == "__main__":
    main()
