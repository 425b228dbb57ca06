"""The canonical text of a parsed Avro schema: what Avro's Java library prints, byte for byte.

Confluent's registry tells schemas apart by this text, so a schema registered here and looked up there (or the
other way round) must have the same one. The order is Avro's (``Schema.toJson``): kind, name, namespace only where
it changes, doc, content, foreign attributes in the order in which they were written, aliases; a named type in full
where it stands first, by name after that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from cdc.registry.avro_defaults import MISSING

if TYPE_CHECKING:
    from cdc.registry.avro import AvroField, AvroType

__all__ = ["canonical_text", "dumps"]

# A type called like one of these is always written with its namespace, or a reader would take it for that kind.
_KINDS = frozenset(
    {
        *("null", "boolean", "int", "long", "float", "double", "bytes", "string"),
        *("record", "enum", "array", "map", "fixed", "union"),
    }
)


def canonical_text(root: AvroType, known: Set[str], *, normalize: bool) -> str:
    """The text of ``root``; types named in ``known`` (of referenced schemas) are written by name only."""
    return dumps(_Writer(known, normalize).type(root, ""))


class _Writer:
    def __init__(self, known: Set[str], normalize: bool) -> None:
        self._written = set(known)
        self._normalize = normalize

    def type(self, kind: AvroType, namespace: str) -> Any:
        if kind.kind == "union":
            return [self.type(branch, namespace) for branch in kind.branches]
        if kind.items is not None:
            attribute = "items" if kind.kind == "array" else "values"
            return {"type": kind.kind, attribute: self.type(kind.items, namespace), **self._props(kind.props)}
        if not kind.name:
            return {"type": kind.kind, **self._props(kind.props)} if kind.props else kind.kind
        own_namespace, _, simple = kind.name.rpartition(".")
        if kind.name in self._written:
            return simple if own_namespace == namespace and simple not in _KINDS else kind.name
        self._written.add(kind.name)
        return self._definition(kind, simple, own_namespace, namespace)

    def _definition(self, kind: AvroType, simple: str, own_namespace: str, namespace: str) -> dict[str, Any]:
        out: dict[str, Any] = {"type": "error" if kind.is_error else kind.kind, "name": simple}
        if own_namespace != namespace:
            out["namespace"] = own_namespace
        if kind.doc is not None and (kind.doc or not self._normalize):
            out["doc"] = kind.doc
        if kind.kind == "record":
            out["fields"] = [self._field(entry, own_namespace) for entry in kind.fields]
        elif kind.kind == "enum":
            out["symbols"] = list(kind.symbols)
            if kind.default is not None:
                out["default"] = kind.default
        else:
            out["size"] = kind.size
        out |= self._props(kind.props)
        if kind.aliases:
            aliases = sorted(kind.aliases) if self._normalize else kind.aliases
            out["aliases"] = [_unqualified(alias, own_namespace) for alias in aliases]
        return out

    def _field(self, entry: AvroField, namespace: str) -> dict[str, Any]:
        out: dict[str, Any] = {"name": entry.name, "type": self.type(entry.type, namespace)}
        if entry.doc is not None:
            out["doc"] = entry.doc
        if entry.default is not MISSING:
            out["default"] = _sorted(entry.default) if self._normalize else entry.default
        if entry.order != "ascending":
            out["order"] = entry.order
        if entry.aliases:
            out["aliases"] = sorted(entry.aliases) if self._normalize else list(entry.aliases)
        return out | self._props(entry.props)

    def _props(self, props: Mapping[str, Any]) -> dict[str, Any]:
        if not self._normalize:
            return dict(props)
        first = ("logicalType", "precision", "scale") if props.get("logicalType") == "decimal" else ("logicalType",)
        leading = {key: props[key] for key in first if key in props and not (key == "scale" and props[key] == 0)}
        return leading | {key: _sorted(props[key]) for key in sorted(props)}


def _unqualified(name: str, namespace: str) -> str:
    own, _, simple = name.rpartition(".")
    return simple if own == namespace and simple not in _KINDS else name


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """Compact JSON as Avro prints it: non-ASCII as it is, floating point numbers in Java's form."""
    if isinstance(value, float):
        return _java_double(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(dumps, value)) + "]"
    return _string(value)


def _string(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _java_double(number: float) -> str:
    """Java's ``Double.toString``: a plain decimal from 1e-3 to below 1e7, else ``d.dddE±n`` without a plus."""
    if math.isnan(number):
        return '"NaN"'
    if math.isinf(number):
        return '"Infinity"' if number > 0 else '"-Infinity"'
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return str(number)
    mantissa, exponent = f"{number!r}e0".split("e")[:2]
    sign = "-" if number < 0 else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    leading_zeros = len(whole + fraction) - len(digits)
    power = int(exponent) + len(whole) - 1 - leading_zeros
    digits = digits.rstrip("0") or "0"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{power}"
