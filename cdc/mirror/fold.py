"""Folding: of all changes of a key in one batch only their sum is written.

Changes are plain tuples, because there is one for each record of the topic.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DELETE", "PATCH", "PUT", "REPLACE", "Op", "Ops", "fold"]

PUT: Final = 0
"""The whole row: set ``fields``, remove the fields named in ``absent``."""
PATCH: Final = 1
"""A part of the row, the rest of which is not known: set ``fields``, remove ``absent``, leave the rest alone."""
DELETE: Final = 2
"""Remove the key."""
REPLACE: Final = 3
"""Remove the key, then set ``fields``: a delete and what came after it."""

Op = tuple[int, list[bytes], tuple[bytes, ...], int, int]
"""Verb, ``fields`` (name, value, name, value, ...), ``absent``, and where it comes from: the number that the batch
has for the partition, and the offset."""
Ops = dict[bytes, Op]
"""Key → its change. One change a key; order between keys does not matter in an atomic batch."""


def fold(older: Op, newer: Op) -> Op:
    """The one change that has the effect of both, ``newer`` after ``older``.

    A delete before anything else makes it a `REPLACE`, the only case in which a key is removed before it is set
    (EXACTNESS.md H23).
    """
    verb, fields, absent, source, offset = newer
    before = older[0]
    if verb in (DELETE, REPLACE):
        return newer
    if verb == PUT:
        return (REPLACE, fields, absent, source, offset) if before in (DELETE, REPLACE) else newer
    if before == DELETE:
        return REPLACE, fields, absent, source, offset
    merged = dict(zip(older[1][::2], older[1][1::2], strict=True))
    for name in absent:
        merged.pop(name, None)
    merged.update(zip(fields[::2], fields[1::2], strict=True))
    gone = tuple(name for name in dict.fromkeys((*older[2], *absent)) if name not in merged)
    return before, [part for pair in merged.items() for part in pair], gone, source, offset
