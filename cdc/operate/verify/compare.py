"""One row against one hash. Pure.

What a hash must hold comes from Postgres's own text by `cdc.codec.canonical.from_postgres`: another way than the
sink's, which starts from Avro bytes. So an error in either of them shows as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from cdc.codec.canonical import CanonicalType, from_postgres

__all__ = [
    "THE_KEY",
    "Drift",
    "FieldDifference",
    "Found",
    "Kind",
    "NotAHash",
    "differences",
    "digest",
    "drift",
    "expected_hash",
    "shortened",
]

SHOWN_BYTES: Final = 60
SHOWN_FIELDS: Final = 8
THE_KEY: Final = "(the key)"
"""In place of a field, where a key holds something else than a hash."""


@dataclass(frozen=True, slots=True)
class NotAHash:
    """What a key holds when it is no hash; ``told`` is the server's answer."""

    told: str


Hash = Mapping[bytes, bytes]
Found = Hash | NotAHash | None
"""What Redis holds under a key; ``None`` when there is no such key."""

Kind = Literal["missing", "ghost", "different"]


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field whose value is not the row's; ``None`` for one that is, or should be, absent. Values are shortened."""

    field: str
    expected: str | None
    found: str | None


@dataclass(frozen=True, slots=True)
class Drift:
    """A key that is proved to differ: ``missing`` (a row without a hash), ``ghost`` (a hash without a row) or
    ``different``. ``fields`` has the first few fields that differ, ``more_fields`` the number of others."""

    kind: Kind
    key: str
    fields: tuple[FieldDifference, ...] = ()
    more_fields: int = 0


def expected_hash(columns: Sequence[tuple[bytes, CanonicalType]], row: Sequence[bytes | None]) -> dict[bytes, bytes]:
    """The fields of a row's hash. ``columns`` are names and types (as `from_postgres` takes them), in the row's order;
    NULL is an absent field."""
    fields = {}
    for (name, type_name), text in zip(columns, row, strict=True):
        value = from_postgres(type_name, text)
        if value is not None:
            fields[name] = value
    return fields


def digest(held: Found) -> bytes:
    """Sixteen bytes that tell whether two hashes are the same, absence included."""
    hashed = blake2b(digest_size=16)
    if isinstance(held, NotAHash):
        hashed.update(b"!" + held.told.encode())
    elif held is not None:
        hashed.update(b"+")
        for name in sorted(held):
            value = held[name]
            hashed.update(b"%d %d " % (len(name), len(value)))
            hashed.update(name)
            hashed.update(value)
    return hashed.digest()


def differences(expected: Hash, found: Hash) -> list[FieldDifference]:
    """The fields that differ, the row's first, then those of the hash that are no column with a value."""
    told = []
    for name in (*expected, *sorted(found.keys() - expected.keys())):
        want, have = expected.get(name), found.get(name)
        if want != have:
            at = _common(want or b"", have or b"")
            told.append(FieldDifference(shortened(name), _shown(want, at), _shown(have, at)))
    return told


def drift(key: bytes, expected: Hash | None, found: Found) -> Drift:
    """What is wrong with a key whose row and hash are known to differ."""
    name = shortened(key, 200)
    if expected is None:
        return Drift("ghost", name)
    if found is None:
        return Drift("missing", name)
    if isinstance(found, NotAHash):
        return Drift("different", name, (FieldDifference(THE_KEY, "a hash", shortened(found.told.encode())),))
    told = differences(expected, found)
    return Drift("different", name, tuple(told[:SHOWN_FIELDS]), max(0, len(told) - SHOWN_FIELDS))


def shortened(value: bytes, limit: int = SHOWN_BYTES, around: int = 0) -> str:
    """A value as a report shows it: printable, at most ``limit`` bytes of it, those near byte ``around``."""
    if len(value) <= limit:
        return _printable(value.decode("utf-8", "backslashreplace"))
    start = max(0, min(around - limit // 3, len(value) - limit))
    text = _printable(value[start : start + limit].decode("utf-8", "ignore"))
    return f"{'…' if start else ''}{text}{'…' if start + limit < len(value) else ''} ({len(value)} bytes)"


def _common(one: bytes, other: bytes) -> int:
    """How many bytes are the same at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _shown(value: bytes | None, around: int) -> str | None:
    return None if value is None else shortened(value, around=around)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
