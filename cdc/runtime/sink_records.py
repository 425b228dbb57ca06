"""How a sink's records are read: by plans compiled from Avro's writer schemas, or by any other converter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cdc.codec.avro_fields import FieldsPlan, KeyPlan
from cdc.config import find_converter
from cdc.config.model import converter_properties
from cdc.converters.avro import AvroConverter
from cdc.converters.avro_reader import AvroReader
from cdc.mirror.general import Convert, GeneralLane
from cdc.mirror.plans import Reader
from cdc.plugin import ConnectorConfig
from cdc.registry.client import RegistryClient

__all__ = ["SinkRecords"]


class SinkRecords:
    """The converters of one sink task: the `Reader` for its assembler, and what its messages go through first.

    `ConfigError` for properties that a converter does not take.
    """

    def __init__(self, config: ConnectorConfig, worker: Mapping[str, str], metadata: re.Pattern[str]) -> None:
        self._closing: list[Callable[[], None]] = []
        self._registries: dict[frozenset[tuple[str, str]], AvroReader] = {}
        self._metadata = metadata
        self.classes = {
            "KEY_CONVERTER": _class(config.key_converter),
            "VALUE_CONVERTER": _class(config.value_converter),
        }
        """The names of the classes that execute Connect's stages."""
        key, keys = self._side(config.key_converter, worker, is_key=True)
        value, values = self._side(config.value_converter, worker, is_key=False)
        self.reader: Reader = _Sides(keys, values)
        self._lane: GeneralLane | None = None
        if key is not None or value is not None:
            self.reader = self._lane = GeneralLane(self.reader, key, value, metadata)

    def routed(self, messages: list[Any]) -> list[Any]:
        """Messages as the assembler takes them."""
        return messages if self._lane is None else self._lane.routed(messages)

    def close(self) -> None:
        for close in self._closing:
            close()

    def _side(self, name: str, worker: Mapping[str, str], *, is_key: bool) -> tuple[Convert | None, AvroReader | None]:
        properties = converter_properties(worker, is_key=is_key)
        plugin = find_converter(name)
        if plugin is AvroConverter:
            return None, self._avro(properties)
        converter = plugin()
        converter.configure(properties, is_key=is_key)
        self._closing.append(converter.close)
        return converter.to_connect, None

    def _avro(self, properties: Mapping[str, str]) -> AvroReader:
        """One reader for both sides, where they have the same registry."""
        settings = frozenset(properties.items())
        if settings not in self._registries:
            registry = RegistryClient(properties.get("schema.registry.url", ""), properties)
            self._closing.append(registry.close)
            self._registries[settings] = AvroReader(registry, self._metadata)
        return self._registries[settings]


class _Sides:
    """Avro keys and values, each by the registry of its converter; ``None`` where another converter reads."""

    def __init__(self, keys: AvroReader | None, values: AvroReader | None) -> None:
        self._keys = keys
        self._values = values

    def fields(self, payload: bytes, /) -> FieldsPlan:
        return _there(self._values).fields(payload)

    def key(self, payload: bytes, /) -> KeyPlan:
        return _there(self._keys).key(payload)


def _class(converter: str) -> str:
    plugin = find_converter(converter)
    return f"{plugin.__module__}.{plugin.__qualname__}"


def _there(reader: AvroReader | None) -> AvroReader:
    if reader is None:
        raise RuntimeError("bytes came to the plans for Avro past their converter")
    return reader
