"""Column masks: what is written in place of a column's text. Pure.

The forms are Debezium's to the byte (``column.mask.with.N.chars``, ``column.mask.hash…``,
``column.truncate.to.N.chars``); the reach is not: Debezium leaves columns that are no text in the clear without a word,
here a masked column of any type becomes a string. NULL stays NULL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cdc.postgres.types import TypeMapping
from cdc.record import Schema

__all__ = ["Mask", "hashed", "is_algorithm", "masked_mapping", "stars", "truncated"]

_VARYING: Final = frozenset({1042, 1043})
"""bpchar and varchar: types with a length."""
_TEXTS: Final = frozenset({18, 19, 25, 1042, 1043})
"""Types that Debezium truncates: "char", name, text, bpchar, varchar."""
_SERIALIZED: Final = b"\xac\xed\x00\x05"
"""Header of Java's object serialization, which Debezium's first form of hash goes through."""


@dataclass(frozen=True, slots=True)
class Mask:
    """What is done to a column. ``rule`` says it without the salt; ``hides`` whether nothing of the value is left."""

    rule: str
    hides: bool
    make: Callable[[int], Callable[[bytes], bytes]]
    """Longest text of the column's type, in characters → text of a value → what is written for it."""
    parameter: tuple[str, str]
    """What Debezium adds to the column's schema."""


def stars(count: int) -> Mask:
    """``column.mask.with.<count>.chars``."""
    text = b"*" * count
    return Mask(f"column.mask.with.{count}.chars", True, lambda _length: lambda _value: text, ("masked", "true"))


def truncated(count: int) -> Mask:
    """``column.truncate.to.<count>.chars``: counted as Java does, in UTF-16; a pair is never cut in half."""

    def cut(value: bytes) -> bytes:
        if len(value) <= count:
            return value
        left, kept = count, []
        for char in value.decode("utf-8"):
            left -= 2 if char > "\uffff" else 1
            if left < 0:
                break
            kept.append(char)
        return "".join(kept).encode("utf-8")

    return Mask(f"column.truncate.to.{count}.chars", False, lambda _length: cut, ("truncateLength", str(count)))


def is_algorithm(name: str) -> bool:
    """Whether ``name`` (as Java calls it: SHA-256, MD5) is an algorithm that there is here too."""
    return _algorithm(name) in hashlib.algorithms_available


def hashed(algorithm: str, salt: str, version: int) -> Mask:
    """``column.mask.hash[.v2].<algorithm>.with.salt.<salt>``, in hexadecimal digits, as many as the type holds.

    The first form hashes the text as Java serializes it, the second its UTF-8.
    """
    name, seed = _algorithm(algorithm), salt.encode("utf-8")
    message = _java_serialized if version == 1 else bytes

    def make(length: int) -> Callable[[bytes], bytes]:
        return lambda value: hashlib.new(name, seed + message(value)).hexdigest()[:length].encode("ascii")

    rule = f"column.mask.hash.{'v2.' if version == 2 else ''}{algorithm}"
    return Mask(rule, True, make, ("masked", "true"))


def masked_mapping(
    mask: Mask, mapping: TypeMapping, type_oid: int, typmod: int
) -> tuple[TypeMapping, Callable[[bytes], bytes] | None]:
    """The mapping of a column under a mask, and what makes its texts; ``None`` for a type that cannot be truncated.

    Nothing of a hidden column is told by its schema: no default, no labels of an enum.
    """
    apply = mask.make(typmod - 4 if type_oid in _VARYING and typmod > 4 else 2**31 - 1)
    if mask.hides:
        return TypeMapping(Schema("string", parameters=(mask.parameter,)), "text"), apply
    if type_oid not in _TEXTS:
        return mapping, None
    schema = mapping.schema
    cut = Schema(schema.type, name=schema.name, version=schema.version, parameters=(*schema.parameters, mask.parameter))
    return TypeMapping(cut, mapping.kind, mapping.params, mapping.has_default), apply


def _algorithm(name: str) -> str:
    lowered = name.lower().replace("/", "_")
    return lowered.replace("-", "_") if lowered.startswith("sha3") else lowered.replace("-", "", 1)


def _java_serialized(value: bytes) -> bytes:
    """A ``java.lang.String`` as ``ObjectOutputStream`` writes it: modified UTF-8, pairs encoded one by one."""
    if max(value, default=0) >= 0xF0:
        units = value.decode("utf-8").encode("utf-16-be")
        data = b"".join(
            units[at : at + 2].decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass")
            for at in range(0, len(units), 2)
        )
    else:
        data = value
    if len(data) > 0xFFFF:
        return _SERIALIZED + b"|" + len(data).to_bytes(8, "big") + data
    return _SERIALIZED + b"t" + len(data).to_bytes(2, "big") + data
