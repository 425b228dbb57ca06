"""Debezium's schema parameters that tell a column's type in Postgres (``column.propagate.source.type``). Pure.

Length and scale are what Debezium takes from Postgres's JDBC driver: for most types the number of characters of its
longest text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["source_parameters"]

_PREFIX: Final = "__debezium.source.column."
_UNLIMITED: Final = 2**31 - 1
_LENGTHS: Final = {
    **{"int2": 5, "int4": 10, "oid": 10, "int8": 19, "float4": 8, "float8": 17, "char": 1, "bool": 1, "date": 13},
    **{"interval": 49, "numeric": 131089},
}
_SCALES: Final = {"float4": 8, "float8": 17}
_CLOCKS: Final = {"time": 8, "timetz": 14, "timestamp": 22, "timestamptz": 28}
"""Characters without the fraction."""


def source_parameters(name: str, type_name: str, typmod: int) -> Sequence[tuple[str, str]]:
    """The parameters of column ``name``, whose type ``pg_type`` calls ``type_name``."""
    return (
        (_PREFIX + "type", type_name.upper()),
        (_PREFIX + "length", str(_length(type_name, typmod))),
        (_PREFIX + "scale", str(_scale(type_name, typmod))),
        (_PREFIX + "name", name),
    )


def _length(type_name: str, typmod: int) -> int:
    if type_name in _CLOCKS:
        # A point and the digits; the driver counts one more for a single digit.
        fraction = 7 if typmod == -1 else 0 if typmod == 0 else 3 if typmod == 1 else typmod + 1
        return _CLOCKS[type_name] + fraction
    if typmod == -1:
        return _LENGTHS.get(type_name, _UNLIMITED)
    match type_name:
        case "numeric":
            return (typmod - 4) >> 16 & 0xFFFF
        case "bpchar" | "varchar":
            return typmod - 4
        case "bit" | "varbit":
            return typmod
    return _LENGTHS.get(type_name, _UNLIMITED)


def _scale(type_name: str, typmod: int) -> int:
    if type_name == "numeric":
        return 0 if typmod == -1 else (typmod - 4) & 0xFFFF
    if type_name in _CLOCKS or type_name == "interval":
        return 6 if typmod == -1 else typmod & 0xFFFF
    return _SCALES.get(type_name, 0)
