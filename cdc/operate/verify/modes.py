"""What a source's settings change of the texts in Redis (docs/types.md, Modes). Pure."""

from __future__ import annotations

from typing import Final

from cdc.codec.canonical import ArrayOf, CanonicalType
from cdc.postgres.config import PostgresConfig

__all__ = ["mirrored_type"]

_BYTES: Final = {"hex": "bytea_hex", "base64-url-safe": "bytea_base64url"}
_NUMBERS: Final = {"numeric": "text", "money": "money_text"}


def mirrored_type(type_: CanonicalType, source: PostgresConfig) -> CanonicalType:
    """The type by which `cdc.codec.canonical.from_postgres` makes what the sink writes of a column: bytes that are
    text in records stay that text, and numbers that are text in records are strings in arrays."""
    if isinstance(type_, ArrayOf):
        element = mirrored_type(type_.element, source)
        if source.decimal_handling_mode == "string" and isinstance(element, str):
            element = _NUMBERS.get(element, element)
        return ArrayOf(element, type_.delimiter)
    return _BYTES.get(source.binary_handling_mode, type_) if type_ == "bytea" else type_
