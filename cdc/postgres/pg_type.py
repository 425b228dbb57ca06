"""Types as the catalog has them, and what `cdc.codec.canonical` calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cdc.codec.canonical import ArrayOf, CanonicalType, RowOf

__all__ = ["FIRST_USER_OID", "PgType", "canonical_type", "has_row"]

_EXTENSIONS: Final = frozenset({"hstore"})
"""Base types of extensions that have a canonical text of their own."""
_CATALOG: Final = "pg_catalog"
FIRST_USER_OID: Final = 16384
"""From here on OIDs are those of objects that somebody created."""


@dataclass(frozen=True, slots=True)
class PgType:
    """A row of ``pg_type``.

    ``typtype`` is ``b`` base, ``e`` enum, ``d`` domain, ``c`` composite, ``r`` range, ``m`` multirange. ``element``
    is the element type of a true array, else 0; ``base`` and ``base_typmod`` are a domain's;
    ``labels`` an enum's, in their order; ``delimiter`` stands between the elements of arrays of this type;
    ``attributes`` are a composite's: name, type, type modifier.
    """

    oid: int
    name: str
    namespace: str
    typtype: str
    element: int = 0
    base: int = 0
    base_typmod: int = -1
    labels: tuple[str, ...] = ()
    delimiter: str = ","
    attributes: tuple[tuple[str, int, int], ...] = ()


def canonical_type(oid: int, typmod: int, types: Mapping[int, PgType]) -> CanonicalType:
    """The type as `cdc.codec.canonical.from_postgres` takes it: domains are what they are over; a type that is not
    Postgres's own counts as text, whatever it is called."""
    found = types.get(oid)
    if found is None:
        return "text"
    if found.typtype == "d":
        return canonical_type(found.base, found.base_typmod if found.base_typmod != -1 else typmod, types)
    if found.element:
        element = types.get(found.element)
        return ArrayOf(canonical_type(found.element, typmod, types), element.delimiter if element else ",")
    if found.typtype == "c":
        return RowOf(tuple((name, canonical_type(part, modifier, types)) for name, part, modifier in found.attributes))
    if found.namespace != _CATALOG:
        return found.name if found.typtype == "b" and found.name in _EXTENSIONS else "text"
    one_bit = found.name in {"bit", "varbit"} and typmod == 1
    return f"{found.name}(1)" if one_bit else found.name


def has_row(type_: CanonicalType) -> bool:
    """Whether values of a type are composites or arrays of them."""
    return isinstance(type_, RowOf) or (isinstance(type_, ArrayOf) and has_row(type_.element))
