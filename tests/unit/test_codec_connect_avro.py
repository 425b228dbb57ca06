"""Connect schemas become the very Avro schemas that Confluent's converter registered for the same histories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fastavro
import pytest

from cdc.codec.connect_avro import avro_schema, avro_text
from cdc.codec.connect_json import parse_schema
from cdc.errors import DataError
from cdc.record import Field, Schema

GOLDEN = Path(__file__).parent.parent / "golden"


def _compact(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def _registered() -> Iterator[Any]:
    for folder in sorted(GOLDEN.iterdir()):
        for path in sorted((folder / "schemas").glob("*.json")) if folder.is_dir() else ():
            subject, version = unquote(path.name.removesuffix(".json")).rsplit(".v", 1)
            topic, part = subject.rsplit("-", 1)
            if subject == "partition_default.public.spread-key":
                continue  # recorded with schemas off, so its Connect schema is not known
            yield pytest.param(folder, topic, part, int(version), path, id=f"{folder.name}:{subject}.v{version}")


def test_all_scenarios_are_here() -> None:
    assert len([path for path in GOLDEN.iterdir() if path.is_dir()]) == 66
    assert len(list(_registered())) > 190


@pytest.mark.parametrize(("folder", "topic", "part", "version", "path"), list(_registered()))
def test_schema_as_registered(folder: Path, topic: str, part: str, version: int, path: Path) -> None:
    forms = json.loads((folder / "connect-schemas.json").read_text())[topic][part]
    want = json.loads(path.read_text())
    # Connect's schemas are listed once each, Avro's once a version: a history that returns to an old schema
    # registers nothing new.
    got = [avro_text(parse_schema(form)) for form in forms]
    assert _compact(want) in got
    if len(forms) == len(list((folder / "schemas").glob(path.name.rsplit(".v", 1)[0] + ".v*.json"))):
        assert got[version - 1] == _compact(want)


@pytest.mark.parametrize("folder", sorted(path for path in GOLDEN.iterdir() if path.is_dir()), ids=lambda p: p.name)
@pytest.mark.parametrize("logical_types", [True, "connect"])
def test_logical_types_only_add_an_attribute(folder: Path, logical_types: Any) -> None:
    def strip(tree: Any) -> Any:
        if isinstance(tree, dict):
            plain = {key: strip(value) for key, value in tree.items()}
            if plain.get("connect.name", "").startswith("io.debezium."):
                plain.pop("logicalType", None)
            return plain
        return [strip(item) for item in tree] if isinstance(tree, list) else tree

    for parts in json.loads((folder / "connect-schemas.json").read_text()).values():
        for form in parts["key"] + parts["value"]:
            if form is None:
                continue
            schema = parse_schema(form)
            rich = avro_schema(schema, logical_types=logical_types)
            assert _compact(strip(rich)) == avro_text(schema)


def _named(name: str, type_: str) -> Schema:
    return Schema(type_, name=name, version=1)


@pytest.mark.parametrize(
    ("name", "type_", "logical", "connect_reads_it"),
    [
        ("io.debezium.time.Date", "int32", "date", False),
        ("io.debezium.time.Time", "int32", "time-millis", False),
        ("io.debezium.time.MicroTime", "int64", "time-micros", True),
        ("io.debezium.time.Timestamp", "int64", "local-timestamp-millis", True),
        ("io.debezium.time.MicroTimestamp", "int64", "local-timestamp-micros", True),
        ("io.debezium.time.NanoTimestamp", "int64", "local-timestamp-nanos", True),
        ("io.debezium.data.Uuid", "string", "uuid", True),
    ],
)
def test_avros_own_logical_type_beside_debeziums_name(
    name: str, type_: str, logical: str, connect_reads_it: bool
) -> None:
    schema = _named(name, type_)
    assert "logicalType" not in avro_schema(schema)
    assert avro_schema(schema, logical_types=True)["logicalType"] == logical
    assert avro_schema(schema, logical_types="connect").get("logicalType") == (logical if connect_reads_it else None)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("io.debezium.time.ZonedTimestamp", "string"),
        ("io.debezium.time.ZonedTime", "string"),
        ("io.debezium.time.NanoTime", "int64"),
        ("io.debezium.time.MicroDuration", "int64"),
        ("io.debezium.time.Interval", "string"),
        ("io.debezium.data.Json", "string"),
    ],
)
def test_no_logical_type_where_avro_has_none_of_that_form(name: str, type_: str) -> None:
    assert avro_schema(_named(name, type_), logical_types=True) == {
        "type": type_ if type_ == "string" else "long",
        "connect.version": 1,
        "connect.name": name,
    }


def test_map_with_other_keys_is_an_array_of_entries() -> None:
    schema = Schema("map", keys=Schema("int32"), values=Schema("string", optional=True))
    assert avro_schema(schema) == {
        "type": "array",
        "items": {
            "type": "record",
            "name": "MapEntry",
            "namespace": "io.confluent.connect.avro",
            "fields": [{"name": "key", "type": "int"}, {"name": "value", "type": ["null", "string"], "default": None}],
        },
    }


def test_small_integers_keep_their_connect_type() -> None:
    assert avro_schema(Schema("int8")) == {"type": "int", "connect.type": "int8"}
    assert avro_schema(Schema("int16", default=3)) == {"type": "int", "connect.default": 3, "connect.type": "int16"}


def test_struct_without_name_and_named_twice() -> None:
    inner = Schema("struct", name="a.b.In", fields=(Field("x", Schema("int32")),))
    outer = Schema("struct", name="a.b.Out", fields=(Field("one", inner), Field("two", inner)))
    assert [field["type"] for field in avro_schema(outer)["fields"]][1] == "In"
    far = Schema("struct", name="c.Out", fields=(Field("one", inner), Field("two", inner)))
    assert [field["type"] for field in avro_schema(far)["fields"]][1] == "a.b.In"
    nameless = Schema("struct", fields=(Field("x", Schema("struct", fields=(Field("y", Schema("int32")),))),))
    assert avro_schema(nameless)["name"] == "ConnectDefault"
    assert avro_schema(nameless)["fields"][0]["type"]["name"] == "ConnectDefault2"
    fastavro.parse_schema(avro_schema(nameless))


def test_two_structs_of_one_name_are_refused() -> None:
    one = Schema("struct", name="a.In", fields=(Field("x", Schema("int32")),))
    other = Schema("struct", name="a.In", fields=(Field("x", Schema("int64")),))
    with pytest.raises(DataError, match=r"a\.In"):
        avro_schema(Schema("struct", name="a.Out", fields=(Field("one", one), Field("two", other))))


def test_unknown_connect_type_is_named() -> None:
    with pytest.raises(ValueError, match="decimal128"):
        parse_schema({"type": "decimal128"})
