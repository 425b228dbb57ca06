"""Transaction metadata: Debezium's BEGIN and END records, and the transaction block of each change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cdc.record import ConnectRecord, Field, RowChange, Schema, Transaction, TransactionBlock

__all__ = ["TransactionMonitor"]

_NAMESPACE: Final = "io.debezium.connector.common"
_STRING: Final = Schema("string")
_INT64: Final = Schema("int64")
_KEY: Final = Schema("struct", name=f"{_NAMESPACE}.TransactionMetadataKey", version=1, fields=(Field("id", _STRING),))
_COLLECTION: Final = Schema(
    "struct",
    optional=True,
    name="event.collection",
    version=1,
    fields=(Field("data_collection", _STRING), Field("event_count", _INT64)),
)
_VALUE: Final = Schema(
    "struct",
    name=f"{_NAMESPACE}.TransactionMetadataValue",
    version=1,
    fields=(
        Field("status", _STRING),
        Field("id", _STRING),
        Field("event_count", Schema("int64", optional=True)),
        Field("data_collections", Schema("array", optional=True, values=_COLLECTION)),
        Field("ts_ms", _INT64),
    ),
)


class TransactionMonitor:
    """Counts the changes of the open transaction. The id is one for all of it, other than Debezium's."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._id = ""
        self._counts: dict[str, int] | None = None

    @property
    def counts(self) -> Mapping[str, int] | None:
        """Changes told of the open transaction, by table; ``None`` before its BEGIN is told. Stored with the offset."""
        return None if self._counts is None else dict(self._counts)

    def begin(self, tx: Transaction, counts: Mapping[str, int] | None) -> None:
        """A transaction begins, or goes on after a restart with what was counted before."""
        self._id = f"{tx.xid}:{tx.commit_lsn}"
        self._counts = None if counts is None else dict(counts)

    def tell(self, out: list[Any], start: int, tx: Transaction) -> None:
        """Number the changes from ``start`` on, and put BEGIN before them, once."""
        if self._counts is None:
            self._counts = {}
            out.insert(start, self._record("BEGIN", tx, 0, None, None))
            start += 1
        counts = self._counts
        for change in out[start:]:
            if isinstance(change, RowChange) and change.op and change.op != "r":
                table = f"{change.shape.schema}.{change.shape.table}"
                counts[table] = counts.get(table, 0) + 1
                change.block = TransactionBlock(self._id, sum(counts.values()), counts[table])

    def end(self, tx: Transaction, ordinal: int) -> ConnectRecord:
        """The END of the transaction, whose last change message was ``ordinal``."""
        counts, self._counts = self._counts or {}, None
        collections = [
            {"data_collection": table, "event_count": counts[table]} for table in _as_in_a_java_map(list(counts))
        ]
        return self._record("END", tx, ordinal + 1, sum(counts.values()), collections)

    def _record(
        self, status: str, tx: Transaction, ordinal: int, count: int | None, collections: list[dict[str, Any]] | None
    ) -> ConnectRecord:
        value = {
            "status": status,
            "id": self._id,
            "event_count": count,
            "data_collections": collections,
            "ts_ms": tx.commit_us // 1000,
        }
        position = tx.position_prefix + b"%08x.%08x" % (ordinal, 0)
        return ConnectRecord(self._topic, _KEY, {"id": self._id}, _VALUE, value, position=position)


def _as_in_a_java_map(names: list[str]) -> list[str]:
    """In the order of a ``java.util.HashMap``, which is that of Debezium's END records."""
    size = 16
    while len(names) > size * 3 // 4:
        size *= 2

    def place(name: str) -> int:
        number = 0
        data = name.encode("utf-16-le")
        for at in range(0, len(data), 2):
            number = (31 * number + (data[at] | data[at + 1] << 8)) & 0xFFFFFFFF
        return (number ^ number >> 16) & (size - 1)

    return sorted(names, key=place)
