"""Fields of flattened records that are not columns.

Debezium's ``ExtractNewRecordState`` puts a row in place of its envelope. Asked to (``add.fields``), it adds fields from
the envelope and its source block, with ``__`` before their names; for ``delete.tombstone.handling.mode=rewrite`` it
adds ``__deleted``, and a deleted row is one like any other, but for that.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DELETED", "DELETES", "METADATA", "metadata_pattern"]

DELETED: Final = "__deleted"
DELETES: Final = {DELETED: ("true", True), "__op": ("d",)}
"""Fields of a flattened row, and the values by which they say that the row was deleted."""

METADATA: Final = re.compile(
    r"__(deleted|op|ts_[mun]s|version|connector|name|snapshot|db|sequence|schema|table|collection|txId|lsn|xmin|origin"
    r"|origin_lsn|server_id|gtid|file|pos|row|thread|query|scn|commit_scn|change_lsn|commit_lsn|event_serial_no"
    r"|(source|transaction)_.+)"
)
"""Names that ``add.fields`` gives by default. Other names that begin with ``__`` are columns."""


def metadata_pattern(expression: str) -> re.Pattern[str]:
    """The names that a setting says are no columns, and `DELETED`. `re.error` for what is no regular expression."""
    return re.compile(f"(?:{expression})|{DELETED}")
