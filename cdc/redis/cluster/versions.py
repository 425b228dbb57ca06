"""Versions of rows: what tells an older change from a newer one, whoever brings it and however often. Pure.

A version is ``<position> <source>``. Positions are compared as text and have a fixed width for each source, because
numbers in Lua are doubles and an LSN is none. Versions of different sources have no order: there the one that comes
later is written.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from cdc.mirror.store import Partition

__all__ = ["VERSION_FIELD", "foreign_source", "suffix", "version"]

VERSION_FIELD: Final = b"__cdc:version"
"""The field of a row's hash that has its version, the only one that is no column."""
_LONGEST: Final = 20
"""Of a source: with a position of 43 bytes and a blank these are 64, the longest value with which Redis keeps a small
hash compact (``hash-max-listpack-value``)."""


def version(source: bytes, position: bytes) -> bytes:
    """The version of a record whose headers have its position."""
    return position + suffix(source)


def foreign_source(partition: Partition, topic_id: str | None) -> bytes:
    """The source of records without position (Debezium's): their partition. A topic that is made anew is another."""
    return f"{partition}@{topic_id}".encode()


@lru_cache(maxsize=4096)
def suffix(source: bytes) -> bytes:
    """What stands behind the position in the versions of a source."""
    return b" " + (source if len(source) <= _LONGEST else blake2b(source, digest_size=10).hexdigest().encode())
