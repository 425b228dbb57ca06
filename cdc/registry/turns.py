"""Several writers, one log, no leader: whose records count, and who may write next.

A compacted topic keeps the *last* record of a key. If two workers both wrote version 3 of a subject, the later one
would stand, whatever readers had agreed on before compaction, and an id handed out would lose its schema. So a race is
settled before the records that matter are written. A writer first appends an **intent**: the records it is about to
write, and the offset up to which it had read when it planned them. In the order of the log an intent is *accepted* if
its writer had seen all that changed something before it; otherwise somebody was quicker, and the writer reads on and
plans anew. The records of an accepted intent are written by its writer or, if that died, by whoever wants to write
next: they are in the intent, and to write them twice changes nothing.

Intents have the key of Confluent's NOOP, whose values Confluent's registry never reads; compaction leaves one of them.
All rules follow from the log alone, hold on any broker, and need no clock. What they cannot exclude is a writer frozen
between its last look at the log and its write, until others have completed its intent *and* changed the same key
again. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cdc.registry.records import Key, Kind, Record, RecordError, decode_value, dump

__all__ = ["Intent", "Turns"]

_FIELD = "cdc.intent"


@dataclass(frozen=True, slots=True)
class Intent:
    """What a writer is about to write, having read all offsets up to and including ``seen``."""

    token: str
    seen: int
    records: tuple[Record, ...]

    def record(self) -> Record:
        """Values stand in it as JSON, not as text in JSON, so that it is hardly larger than its records."""
        body = {
            "token": self.token,
            "seen": self.seen,
            "records": [
                [record.key.decode(), None if record.value is None else decode_value(record.value)]
                for record in self.records
            ],
        }
        return Record(Key(Kind.NOOP).encode(), dump({_FIELD: body}))

    @classmethod
    def decode(cls, value: bytes | None) -> Intent | None:
        """The intent in a NOOP's value, or None: Confluent's own have no value."""
        if value is None:
            return None
        try:
            body = decode_value(value)[_FIELD]
            records = tuple(Record(key.encode(), None if item is None else dump(item)) for key, item in body["records"])
            return cls(str(body["token"]), int(body["seen"]), records) if records else None
        except (RecordError, KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(slots=True)
class Turns:
    """The turns taken on a log, told its records in order."""

    tail: int = -1
    """Offset of the last record that changed something or was an accepted intent."""
    pending: Intent | None = None
    """The accepted intent whose records have not all been seen, with those only that are still to come."""
    _watched: dict[str, bool | None] = field(default_factory=dict)

    def noop(self, offset: int, value: bytes | None) -> None:
        intent = Intent.decode(value)
        if intent is None:
            return
        accepted = intent.seen >= self.tail
        if intent.token in self._watched:
            self._watched[intent.token] = accepted
        if accepted:
            self.tail = offset
            self.pending = intent

    def changed(self, offset: int, record: Record) -> None:
        self.tail = offset
        if self.pending is not None and record == self.pending.records[0]:
            rest = self.pending.records[1:]
            self.pending = Intent(self.pending.token, self.pending.seen, rest) if rest else None

    def watch(self, token: str) -> None:
        """Remember the verdict on this intent, until it is fetched."""
        self._watched[token] = None

    def verdict(self, token: str) -> bool:
        """Whether a watched intent was accepted; ends the watch."""
        return bool(self._watched.pop(token, None))

    def outstanding(self, token: str) -> Sequence[Record]:
        """The records of this accepted intent that have not been seen yet."""
        return self.pending.records if self.pending is not None and self.pending.token == token else ()
