"""Which JSON values are defaults for which Avro type (Avro specification 1.12, "field default values")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cdc.registry.avro import AvroType

__all__ = ["MISSING", "is_valid_default"]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""A field without a default; ``None`` is the default ``null``."""

_INTEGERS: Final = {"int": 1 << 31, "long": 1 << 63}


def is_valid_default(kind: AvroType, value: Any) -> bool:
    """Whether ``value`` (parsed JSON) can stand as the default of a field of this type.

    A default of a union may belong to any branch, as in Avro 1.12; earlier versions want the first.
    """
    match kind.kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "int" | "long":
            limit = _INTEGERS[kind.kind]
            return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
        case "float" | "double":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string" | "bytes" | "fixed":
            return isinstance(value, str)
        case "enum":
            return value in kind.symbols
        case "array":
            return isinstance(value, list) and kind.items is not None and _all_valid(kind.items, value)
        case "map":
            return isinstance(value, dict) and kind.items is not None and _all_valid(kind.items, list(value.values()))
        case "union":
            return any(is_valid_default(branch, value) for branch in kind.branches)
        case _:
            return isinstance(value, dict) and all(
                is_valid_default(f.type, value.get(f.name, f.default)) for f in kind.fields
            )


def _all_valid(kind: AvroType, values: list[Any]) -> bool:
    return all(is_valid_default(kind, value) for value in values)
