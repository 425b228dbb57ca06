"""Letters as the rows that they are about: decoded again as the sink would, and what their topic holds after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from cdc.config import ConnectorSpec
from cdc.errors import CdcError
from cdc.mirror.assembly import Assembler
from cdc.mirror.partitions import Message, Standing, original
from cdc.mirror.rows import placeholders
from cdc.mirror.store import Batch, Partition
from cdc.mirror.tables import Tables
from cdc.operate.dlq.queue import Entry
from cdc.runtime.sink_records import SinkRecords

__all__ = ["Bearings", "Replayed", "Rows"]


class Replayed:
    """A letter as the record that it was."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def topic(self) -> str:
        return self.entry.letter.topic

    def partition(self) -> int:
        return self.entry.letter.partition

    def offset(self) -> int:
        return self.entry.letter.offset

    def key(self) -> bytes | None:
        return self.entry.key

    def value(self) -> bytes | None:
        return self.entry.value

    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        return self.entry.headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self.entry.timestamp


class Rows:
    """Reads records as one sink does, its settings as they are now. ``worker`` has its properties."""

    def __init__(self, spec: ConnectorSpec, worker: Mapping[str, str]) -> None:
        self._settings: Any = spec.connector.config
        self.worker = worker
        self.spec = spec
        metadata = getattr(self._settings, "metadata", None)
        self._records = None if metadata is None else SinkRecords(self._settings, worker, metadata)

    @property
    def records(self) -> SinkRecords:
        if self._records is None:
            raise RuntimeError("a source does not read records")
        return self._records

    def assembler(self, part: Partition, tables: Tables) -> Assembler:
        settings = self._settings
        made = Assembler(
            settings.name,
            self.records.reader,
            settings.template,
            ttl=settings.redis_ttl,
            not_known=placeholders(settings.unavailable_value_placeholder),
            tolerant=True,
            versions=True,
        )
        made.assign({part: Standing()}, tables)
        return made

    def batch(self, part: Partition, entries: Sequence[Entry], tables: Tables) -> tuple[Batch, dict[str, str]]:
        """The change that letters of one row come to; or why some are still at fault, by id."""
        made = self.assembler(part, tables)
        made.add(self.records.routed([Replayed(entry) for entry in entries]), unbounded=True)
        if made.waiting is not None:
            raise made.waiting
        faults = {}
        for rejected in made.take_rejected():
            found: Any = original(rejected.message)
            faults[found.entry.id] = f"still at fault at {rejected.stage}: {rejected.error}"
        return made.finish(), faults

    def is_truncate(self, message: Message) -> bool:
        """Whether a record removes all rows of its table."""
        try:
            (routed,) = self.records.routed([message])
            value = routed.value()
            if value is None:
                return False
            plan = self.records.reader.fields(value)
            return plan.mirrored and plan.decode(value, 5) == (None, b"t")
        except CdcError:
            return False  # another letter

    def close(self) -> None:
        if self._records is not None:
            self._records.close()


class Bearings:
    """What a partition holds behind letters: for each of their rows its last record, and the last truncate.

    Records at the offsets ``aside`` were put aside and not applied. All ``entries`` have a key.
    """

    def __init__(self, rows: Rows, part: Partition, entries: Sequence[Entry], aside: Set[int]) -> None:
        self._rows = rows
        self._aside = aside
        self._assembler = rows.assembler(part, Tables())
        self.first = min(entry.letter.offset for entry in entries)
        self.groups: dict[bytes, list[Entry]] = {}
        """Letters by row, in order; by their bytes where these tell of none."""
        self._group_of: dict[bytes, bytes] = {}
        for entry in entries:
            key = entry.key or b""
            group = self._assembler.row_key(self._routed(Replayed(entry))) or key
            self.groups.setdefault(group, []).append(entry)
            self._group_of[key] = group
        self.later = dict.fromkeys(self.groups, -1)
        """Offset of the last record that was applied, by row; -1 if there is none."""
        self.truncated = -1
        self._heads = {key[:5] for key in self._group_of if key.startswith(b"\0")}

    def passed(self, message: Any) -> None:
        """The next record of the partition."""
        offset = message.offset()
        if offset in self._aside:
            return
        key = message.key()
        if key in self._group_of:
            self.later[self._group_of[key]] = offset
            return
        if key is not None and key[:5] in self._heads:
            return  # of the same schema, and so of another row
        # A truncate's key is none of a row's; a row may have another key where other schemas or programs made it.
        if self._rows.is_truncate(message):
            self.truncated = offset
        elif key is not None and (row := self._assembler.row_key(self._routed(message))) in self.later:
            self.later[row] = offset

    def _routed(self, message: Any) -> Any:
        return self._rows.records.routed([message])[0]
