"""Every converter is found by its short name and by the class name of Connect's world."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cdc.plugin import Converter

ROOT = Path(__file__).parents[2]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["cdc.converters"]
CLASSES = {
    "avro": "io.confluent.connect.avro.AvroConverter",
    "json": "org.apache.kafka.connect.json.JsonConverter",
    "jsonschema": "io.confluent.connect.json.JsonSchemaConverter",
    "protobuf": "io.confluent.connect.protobuf.ProtobufConverter",
    "string": "org.apache.kafka.connect.storage.StringConverter",
    "bytes": "org.apache.kafka.connect.converters.ByteArrayConverter",
    "short": "org.apache.kafka.connect.converters.ShortConverter",
    "integer": "org.apache.kafka.connect.converters.IntegerConverter",
    "long": "org.apache.kafka.connect.converters.LongConverter",
    "float": "org.apache.kafka.connect.converters.FloatConverter",
    "double": "org.apache.kafka.connect.converters.DoubleConverter",
    "boolean": "org.apache.kafka.connect.converters.BooleanConverter",
}


def test_all_are_installed() -> None:
    assert POINTS.keys() == CLASSES.keys()


def _class(name: str) -> Any:
    module, _, attribute = POINTS[name].partition(":")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_converter_answers_to_its_class_name(name: str) -> None:
    found = _class(name)
    assert issubclass(found, Converter)
    assert CLASSES[name] in found.aliases
    assert not found.__abstractmethods__


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_property_is_documented(name: str) -> None:
    page = (ROOT / "docs" / "converters.md").read_text(encoding="utf-8")
    found = _class(name)
    for setting in (*getattr(found, "settings", ()), *getattr(found, "common", ())):
        assert f"`{setting.name}`" in page
    assert f"`{name}`" in page
