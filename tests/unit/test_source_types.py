"""Parameters that tell a column's source type are those of Debezium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdc.postgres.source_types import source_parameters

GOLDEN = Path(__file__).parents[1] / "golden" / "source_type_parameters"


@pytest.mark.parametrize(
    ("column", "type_name", "typmod"),
    [("a", "varchar", 16), ("b", "bpchar", 7), ("n", "numeric", (9 << 16 | 4) + 4), ("tz", "timestamptz", 2)],
)
def test_recorded_parameters(column: str, type_name: str, typmod: int) -> None:
    recorded = json.loads((GOLDEN / "connect-schemas.json").read_text())
    [schemas] = recorded.values()
    fields = schemas["value"][0]["fields"][0]["fields"]
    parameters = next(field["parameters"] for field in fields if field["field"] == column)
    told = [pair for pair in parameters.items() if pair[0].startswith("__debezium")]
    assert list(source_parameters(column, type_name, typmod)) == told


@pytest.mark.parametrize(
    ("type_name", "typmod", "length", "scale"),
    [
        ("text", -1, "2147483647", "0"),
        ("date", -1, "13", "0"),
        ("int4", -1, "10", "0"),
        ("float8", -1, "17", "17"),
        ("timestamp", -1, "29", "6"),
        ("timestamp", 0, "22", "0"),
        ("time", 1, "11", "1"),
        ("varbit", 5, "5", "0"),
        ("varchar", -1, "2147483647", "0"),
        ("citext", -1, "2147483647", "0"),
    ],
)
def test_lengths_are_those_of_the_jdbc_driver(type_name: str, typmod: int, length: str, scale: str) -> None:
    parameters = dict(source_parameters("c", type_name, typmod))
    assert (parameters["__debezium.source.column.length"], parameters["__debezium.source.column.scale"]) == (
        length,
        scale,
    )
