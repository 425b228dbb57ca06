"""Avro schemas as a registry sees them: parsed, checked, and written in one canonical text.

The canonical text is what Apache Avro's Java library prints for a parsed schema (``Schema.toString()``), because
Confluent's registry stores and compares that: white space and the order of attributes do not matter; names,
defaults, docs, aliases and foreign attributes (``connect.*``) do. Rules: Avro specification 1.12, "Schema
Declaration", "Names", "Aliases". No I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cdc.registry.avro_defaults import MISSING, is_valid_default
from cdc.registry.avro_text import canonical_text
from cdc.registry.errors import InvalidSchema

__all__ = ["NAMED", "PRIMITIVES", "AvroField", "AvroSchema", "AvroType", "parse", "resolve"]

PRIMITIVES: Final = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
NAMED: Final = frozenset(("record", "enum", "fixed"))
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Attributes with a meaning of their own are not "properties", wherever they stand (Avro's SCHEMA_RESERVED).
_RESERVED: Final = frozenset(
    ("doc", "fields", "items", "name", "namespace", "size", "symbols", "values", "type", "aliases")
)
_FIELD_RESERVED: Final = frozenset(("default", "doc", "name", "order", "type", "aliases"))


@dataclass(eq=False, slots=True)
class AvroField:
    """One field of a record. ``default`` is `MISSING` when there is none; ``aliases`` are plain names."""

    name: str
    type: AvroType
    default: Any = MISSING
    doc: str | None = None
    order: str = "ascending"
    aliases: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class AvroType:
    """A type; named types may occur several times and in themselves, as the same object.

    ``name`` and ``aliases`` are full names; ``items`` is the element of an array or the value of a map.
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    doc: str | None = None
    fields: list[AvroField] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    default: str | None = None
    size: int = 0
    items: AvroType | None = None
    branches: tuple[AvroType, ...] = ()
    is_error: bool = False
    props: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """A parsed schema and its canonical text, from which types of referenced schemas are left out."""

    root: AvroType
    text: str


def resolve(text: str, references: Iterable[str]) -> str:
    """The canonical text of a schema with the types of ``references`` written out where they are first used."""
    return canonical_text(parse(text, references, strict=False).root, frozenset(), normalize=False)


def parse(text: str, references: Iterable[str] = (), *, strict: bool = True, normalize: bool = False) -> AvroSchema:
    """Parse ``text``, which may use the named types of ``references`` (in order of dependence).

    ``strict`` also refuses names and defaults that Avro does not allow; off for schemas that a registry holds
    already. ``normalize`` sorts what has no order, as Confluent's ``normalize=true``. `InvalidSchema` names the place.
    """
    names: dict[str, AvroType] = {}
    try:
        for reference in references:
            _Parser(names, strict=False).type(_load(reference), "", "$")
        known = set(names)
        root = _Parser(names, strict=strict).type(_load(text), "", "$")
        return AvroSchema(root, canonical_text(root, known, normalize=normalize))
    except RecursionError:
        raise InvalidSchema("Avro schema is nested too deeply to be parsed; split it into named types") from None


def _load(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise InvalidSchema(f"Avro schema is not valid JSON: {constant} is not a JSON value")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError as error:
        # A bare type name is a schema too: clients register "string" without its quotes.
        if text.strip() in PRIMITIVES:
            return text.strip()
        raise InvalidSchema(f"Avro schema is not valid JSON: {error}") from None


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _split(full: str) -> tuple[str, str]:
    namespace, _, name = full.rpartition(".")
    return namespace, name


class _Parser:
    def __init__(self, names: dict[str, AvroType], *, strict: bool) -> None:
        self._names = names
        self._strict = strict

    def type(self, node: Any, namespace: str, where: str) -> AvroType:
        if isinstance(node, str):
            return self._named(node, namespace, where)
        if isinstance(node, list):
            return self._union(node, namespace, where)
        if not isinstance(node, dict):
            raise InvalidSchema(f"{where}: a type is a name, an object or a list, not {json.dumps(node)}")
        kind = node.get("type")
        if not isinstance(kind, str):
            raise InvalidSchema(f'{where}: no "type", or one that is not a name')
        if kind in PRIMITIVES:
            return AvroType(kind, props=_props(node))
        if kind in ("record", "error", "enum", "fixed"):
            return self._definition(kind, node, namespace, where)
        if kind in ("array", "map"):
            attribute = "items" if kind == "array" else "values"
            if attribute not in node:
                raise InvalidSchema(f'{where}: {kind} has no "{attribute}"')
            items = self.type(node[attribute], namespace, f"{where}.{attribute}")
            return AvroType(kind, items=items, props=_props(node))
        return self._named(kind, namespace, where)

    def _named(self, name: str, namespace: str, where: str) -> AvroType:
        if name in PRIMITIVES:
            return AvroType(name)
        found = self._names.get(_full_name(name, namespace)) or self._names.get(name)
        if found is None:
            raise InvalidSchema(f'{where}: "{name}" is not a defined name; define it before it is used')
        return found

    def _union(self, node: list[Any], namespace: str, where: str) -> AvroType:
        branches = tuple(self.type(branch, namespace, f"{where}[{i}]") for i, branch in enumerate(node))
        seen = set()
        for branch in branches:
            if branch.kind == "union":
                raise InvalidSchema(f"{where}: a union may not hold a union")
            key = branch.name or branch.kind
            if key in seen:
                raise InvalidSchema(f"{where}: {branch} is in the union twice")
            seen.add(key)
        return AvroType("union", branches=branches)

    def _definition(self, kind: str, node: dict[str, Any], namespace: str, where: str) -> AvroType:
        full = self._define_name(node, namespace, where)
        own_namespace, _ = _split(full)
        named = AvroType(
            "record" if kind == "error" else kind,
            full,
            aliases=_aliases(node, own_namespace, where),
            doc=_text(node.get("doc")),
            is_error=kind == "error",
            props=_props(node, also="default" if kind == "enum" else ""),
        )
        self._names[full] = named
        if kind == "enum":
            self._enum(named, node, where)
        elif kind == "fixed":
            size = node.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise InvalidSchema(f'{where}: fixed {full} needs a "size" of 0 or more')
            named.size = size
        else:
            self._fields(named, node, own_namespace, where)
        return named

    def _define_name(self, node: dict[str, Any], namespace: str, where: str) -> str:
        name = node.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidSchema(f'{where}: {node["type"]} has no "name"')
        if "namespace" in node:
            namespace = _text(node["namespace"]) or ""
        full = _full_name(name, namespace)
        own_namespace, simple = _split(full)
        full = full if own_namespace else simple
        self._check_name(simple, where)
        if full in PRIMITIVES:
            raise InvalidSchema(f"{where}: a type may not be named after the primitive type {full}")
        if full in self._names:
            raise InvalidSchema(f"{where}: {full} is defined twice")
        return full

    def _enum(self, enum: AvroType, node: dict[str, Any], where: str) -> None:
        symbols = node.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise InvalidSchema(f'{where}: enum {enum.name} needs a list of "symbols"')
        if len(set(symbols)) != len(symbols):
            raise InvalidSchema(f"{where}: enum {enum.name} has a symbol twice")
        for symbol in symbols:
            self._check_name(symbol, where)
        enum.symbols = tuple(symbols)
        if node.get("default") is not None:
            enum.default = _text(node["default"])
            if enum.default not in symbols:
                raise InvalidSchema(f"{where}: the default of enum {enum.name} is not one of its symbols")

    def _fields(self, record: AvroType, node: dict[str, Any], namespace: str, where: str) -> None:
        fields = node.get("fields")
        if not isinstance(fields, list):
            raise InvalidSchema(f'{where}: record {record.name} needs a list of "fields"')
        seen = set()
        for i, entry in enumerate(fields):
            place = f"{where}.fields[{i}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise InvalidSchema(f'{place}: a field of {record.name} is an object with a "name"')
            name = entry["name"]
            place = f"{where}.{name}"
            self._check_name(name, place)
            if name in seen:
                raise InvalidSchema(f"{place}: record {record.name} has the field twice")
            seen.add(name)
            if "type" not in entry:
                raise InvalidSchema(f'{place}: the field has no "type"')
            record.fields.append(self._field(entry, namespace, place))

    def _field(self, entry: dict[str, Any], namespace: str, place: str) -> AvroField:
        kind = self.type(entry["type"], namespace, place)
        default = entry.get("default", MISSING)
        if isinstance(default, str) and kind.kind in ("float", "double"):
            try:
                default = float(default)  # Avro takes numbers in quotes, "NaN" and "Infinity" among them
            except ValueError:
                raise InvalidSchema(f"{place}: {default!r} is not a default for {kind}") from None
        elif self._strict and default is not MISSING and not is_valid_default(kind, default):
            raise InvalidSchema(f"{place}: {json.dumps(default)} is not a valid default for {kind}")
        order = entry.get("order", "ascending")
        if not isinstance(order, str) or order.lower() not in ("ascending", "descending", "ignore"):
            raise InvalidSchema(f'{place}: "order" is ascending, descending or ignore')
        aliases = entry.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise InvalidSchema(f'{place}: "aliases" is a list of names')
        props = {key: value for key, value in entry.items() if key not in _FIELD_RESERVED}
        return AvroField(
            entry["name"], kind, default, _text(entry.get("doc")), order.lower(), tuple(dict.fromkeys(aliases)), props
        )

    def _check_name(self, name: str, where: str) -> None:
        if self._strict and not _NAME.match(name):
            raise InvalidSchema(f"{where}: {name!r} is not an Avro name ([A-Za-z_][A-Za-z0-9_]*)")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _props(node: Mapping[str, Any], also: str = "") -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in _RESERVED and key != also}


def _aliases(node: Mapping[str, Any], namespace: str, where: str) -> tuple[str, ...]:
    aliases = node.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise InvalidSchema(f'{where}: "aliases" is a list of names')
    return tuple(dict.fromkeys(_full_name(alias, namespace) for alias in aliases))
