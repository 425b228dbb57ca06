"""Converters without a fast path for rows: their values are made (`cdc.codec.connect_rows`), then encoded.

What a schema cannot hold exactly travels in the header ``cdc.text`` as with Avro, and keys that are not exact are
refused.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from cdc.codec.connect_rows import row_values
from cdc.plugin import Converter, Encoder, KeyEncoder, KeyMemory, ValueEncoder
from cdc.record import RowChange, RowShape, Schema

__all__ = ["GeneralConverter"]


class GeneralConverter(Converter):
    """What is the same for all converters that write values of Connect's schemas."""

    def __init__(self) -> None:
        self._version = version("cdc")
        self._is_key = False

    def configure(self, config: Mapping[str, str], *, is_key: bool) -> None:
        self._is_key = is_key
        self._configure(config)

    @abstractmethod
    def _configure(self, config: Mapping[str, str]) -> None:
        """Take the properties. `ConfigError` for what is wrong in them."""

    @abstractmethod
    def _row_key_encoder(self, shape: RowShape, schema: Schema, memory: KeyMemory) -> Encoder:
        """The encoder of the structs of ``schema``, a table's keys. Their bytes must stay what they were (H14)."""

    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        """As `cdc.plugin.Converter.key_encoder`. `FatalError` when names, types or form of the key changed."""
        if shape.key_schema is None:
            return _without_key
        encode = self._row_key_encoder(shape, shape.key_schema, memory)
        key = row_values(shape, self._version).key

        def encode_key(change: RowChange) -> bytes | None:
            struct = key(change)
            return None if struct is None else encode(struct)

        return encode_key

    def value_encoder(self, shape: RowShape) -> ValueEncoder:
        encode = self.encoder(shape.topic, shape.envelope_schema)
        envelope = row_values(shape, self._version).envelope

        def encode_value(change: RowChange, now_us: int) -> bytes | None:
            struct: Any = envelope(change, now_us)
            return None if struct is None else encode(struct)

        return encode_value


def _without_key(_change: RowChange) -> bytes | None:
    return None
