"""The golden scenarios' snapshot rows, from Postgres's text and catalog: schemas and values equal Debezium's.

``codec_golden_rows.json`` holds, for each table, what Postgres 15 printed (COPY's text, ``pg_get_expr``,
``pg_type``) after the scenario's ``scenario.sql``, under the session settings that readers rely on.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cdc.codec.connect_json import parse_schema, value_to_json
from cdc.codec.envelope import row_shape
from cdc.codec.values import Inexact, reader
from cdc.postgres.types import PgType, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT, Column, RowShape, Schema

GOLDEN = Path(__file__).parent.parent / "golden"
ROWS = json.loads((Path(__file__).parent / "codec_golden_rows.json").read_text())

TABLES = [pytest.param(scenario, table, id=f"{scenario}:{table}") for scenario in ROWS for table in ROWS[scenario]]

SCHEMAS_DIFFER = {
    "defaults:fn": "a computed default is none",
    "defaults:g": "generated columns are in Debezium's snapshot only",
    "types_text:vc_nn": "a quote within a default is kept",
    "types_json_uuid_xml:tsq": "not left out",
    **dict.fromkeys((f"types_network_geometry:{name}" for name in ("b", "l", "s", "pa", "po", "ci")), "not left out"),
    **dict.fromkeys(
        (
            f"unknown_types{kind}:{name}"
            for kind in ("", "_included")
            for name in ("p", "mr", "q", "l", "jp", "xi", "rc", "ma", "ia", "na", "pa")
        ),
        "not left out, nor opaque bytes",
    ),
    "unknown_types:ba": "an array of bits is an array",
    "unknown_types_included:ba": "an array of bits is an array",
}
VALUES_DIFFER = {
    ("temporal_extremes_adaptive:d", "infinity"): 2**31 - 1,
    ("temporal_extremes_adaptive:d", "-infinity"): -(2**31),
    ("temporal_extremes_adaptive:d", "0044-03-15 BC"): -735160,
    ("temporal_extremes_adaptive:d", "4713-01-01 BC"): -2440550,
    ("temporal_extremes_adaptive:ttz", "24:00:00+00"): "24:00:00Z",
    ("temporal_extremes_adaptive:ts", "294276-12-31 23:59:59.999999"): None,
}
"""What we write where Debezium spoils a value."""


@cache
def _modes(scenario: str) -> TypeModes:
    settings = json.loads((GOLDEN / scenario / "connector.json").read_text())
    return TypeModes(
        decimal=settings.get("decimal.handling.mode", "precise"),
        time=settings.get("time.precision.mode", "adaptive"),
        binary=settings.get("binary.handling.mode", "bytes"),
        hstore=settings.get("hstore.handling.mode", "json"),
        interval=settings.get("interval.handling.mode", "numeric"),
    )


def _shape(scenario: str, table: str) -> RowShape:
    told = ROWS[scenario][table]
    catalog = {entry[0]: PgType(*entry[:7], labels=tuple(entry[7])) for entry in told["types"]}
    columns = []
    for name, oid, typmod, not_null, default in told["columns"]:
        mapping = resolve(oid, typmod, catalog, _modes(scenario))
        constant = NO_DEFAULT if default is None else default_value(default, mapping)
        schema = replace(mapping.schema, optional=not not_null, default=constant)
        columns.append(Column(name, schema, mapping.kind, mapping.params))
    names = [column.name for column in columns]
    key = [names.index(name) for name in told["key"]]
    return row_shape(f"{scenario}.{table}", "golden", *table.split("."), columns, key, scenario)


@cache
def _recorded(scenario: str) -> Any:
    return json.loads((GOLDEN / scenario / "connect-schemas.json").read_text())


@pytest.mark.parametrize(("scenario", "table"), TABLES)
def test_schemas_are_debeziums(scenario: str, table: str) -> None:
    shape = _shape(scenario, table)
    recorded = _recorded(scenario)[shape.topic]
    want = parse_schema(recorded["value"][0])
    rows = {field.name: field.schema for field in want.fields}
    wanted = {field.name: field.schema for field in rows["after"].fields}
    got = {field.name: field.schema for field in shape.row_schema.fields}
    differing = {name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name)}
    assert differing == {key.split(":")[1] for key in SCHEMAS_DIFFER if key.split(":")[0] == scenario}
    if not differing:
        assert shape.envelope_schema == want
    else:
        assert replace(shape.envelope_schema, fields=shape.envelope_schema.fields[2:]) == replace(
            want, fields=want.fields[2:]
        )
    if scenario != "pk_kinds" or table not in {"public.mk", "public.mk2", "public.pk_uniq"}:  # configured keys
        assert shape.key_schema == (parse_schema(recorded["key"][0]) if recorded["key"] else None)


@pytest.mark.parametrize(("scenario", "table"), TABLES)
def test_snapshot_values_are_debeziums(scenario: str, table: str) -> None:
    shape = _shape(scenario, table)
    lines = (GOLDEN / scenario / "records.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["topic"] == shape.topic and record["value"]]
    images = [record["value"]["after"] for record in records if record["value"]["op"] == "r"]
    rows = ROWS[scenario][table]["rows"]
    assert len(images) == len(rows)
    for image, row in zip(images, rows, strict=True):
        for column, text in zip(shape.columns, row, strict=True):
            if f"{scenario}:{column.name}" in SCHEMAS_DIFFER and column.name not in {"vc_nn", "fn"}:
                continue
            got = _as_json(column, text)
            want = VALUES_DIFFER.get((f"{scenario}:{column.name}", text), image[column.name])
            if column.kind == "hstore_json" and text is not None:  # Debezium's keys are in the order of a hash map
                got, want = json.loads(got), json.loads(want)
            assert _comparable(column.schema, got) == _comparable(column.schema, want), (column.name, text)


def _as_json(column: Column, text: str | None) -> Any:
    if text is None:
        return None
    value = reader(column.kind, column.params)(text.encode())
    if isinstance(value, Inexact):
        assert value.text == (text.replace("$", "").replace(",", "") if column.kind == "money_double" else text)
        value = value.fallback
    return value_to_json(column.schema, value)


def _comparable(schema: Schema, value: Any) -> Any:
    if schema.type == "float32" and isinstance(value, float):
        return struct.pack("<f", value)  # Java prints some singles with other digits
    return value
