"""Decode rows for the sink: the compiled plan beside fastavro, in microseconds a row.

``python bench/sink_codec.py``. The row has 9 columns and 230 bytes of Avro inside a Debezium envelope.
"""

from __future__ import annotations

import io
import json
import timeit
from typing import Any

import fastavro

from cdc.codec.avro_fields import compile_fields, compile_key

_DECIMAL = {"type": "bytes", "connect.name": "org.apache.kafka.connect.data.Decimal", "scale": 2}
_TIMESTAMP = {"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"}
_COLUMNS = [
    ("id", "long", 1_234_567),
    ("email", "string", "somebody.or.other@example.com"),
    ("name", ["null", "string"], "Somebody Or Other"),
    ("tier", "int", 3),
    ("active", "boolean", True),
    ("score", ["null", "double"], 0.123456789),
    ("notes", ["null", "string"], "x" * 130),
    ("balance", ["null", _DECIMAL], b"\x12\x34"),
    ("updated_at", _TIMESTAMP, "2026-01-31T12:00:00.123450Z"),
]
_VALUE = {"type": "record", "name": "Value", "fields": [{"name": name, "type": kind} for name, kind, _ in _COLUMNS]}
_SOURCE = {
    "type": "record",
    "name": "Source",
    "fields": [{"name": name, "type": "string"} for name in ("version", "connector", "name", "db", "schema", "table")]
    + [{"name": name, "type": "long"} for name in ("ts_ms", "txId", "lsn")],
}
_ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.public.customers",
    "fields": [
        {"name": "before", "type": ["null", _VALUE]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": _SOURCE},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": "long"},
    ],
}
_KEY = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}


def _encoded(schema: Any, value: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return b"\0\0\0\0\1" + out.getvalue()


def _microseconds(work: object) -> float:
    return min(timeit.repeat(work, number=20_000, repeat=7)) / 20_000 * 1e6  # type: ignore[arg-type]


def main() -> None:
    schema = fastavro.parse_schema(json.loads(json.dumps(_ENVELOPE)))
    row = {name: value for name, _, value in _COLUMNS}
    source = dict.fromkeys(("version", "connector", "name", "db", "schema", "table"), "customers")
    source |= {"ts_ms": 1_770_000_000_000, "txId": 12345, "lsn": 123_456_789}  # type: ignore[dict-item]
    change = {"before": None, "after": row, "source": source, "op": "u", "ts_ms": 1_770_000_000_001}
    payload = _encoded(schema, change)
    size = len(_encoded(fastavro.parse_schema(json.loads(json.dumps(_VALUE))), row)) - 5
    decode = compile_fields(json.dumps(_ENVELOPE)).decode
    key = _encoded(fastavro.parse_schema(_KEY), {"id": 1_234_567})
    decode_key = compile_key(json.dumps(_KEY)).decode
    print(f"row of {size} bytes, {len(_COLUMNS)} columns; value of {len(payload)} bytes")
    print(f"compiled plan, value to fields   {_microseconds(lambda: decode(payload, 5)):6.2f} us/row")
    print(f"compiled plan, key to texts      {_microseconds(lambda: decode_key(key, 5)):6.2f} us/row")
    reader = fastavro.schemaless_reader

    def generic() -> None:
        reader(io.BytesIO(payload[5:]), schema, None)

    print(f"fastavro, value to a dict        {_microseconds(generic):6.2f} us/row")


if __name__ == "__main__":
    main()
