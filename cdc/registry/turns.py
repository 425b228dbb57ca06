"""Several writers, one log, no leader: who may write next.

A compacted topic keeps the *last* record of a key. If two workers both wrote version 3 of a subject, the later one
would stand, whatever readers had agreed on before compaction, and an id handed out would lose its schema. So a race is
settled before the records that matter are written. A writer first appends an **intent**: the records it is about to
write, and the last offset it had read when it planned them. The intent is *accepted* if it stands directly behind that
offset; otherwise somebody was quicker, and the writer reads on and plans anew. That can be told from the intent alone,
so all readers agree, whatever compaction took away before they came. Only then the writer writes the records. If it
dies before, whoever wants to write next takes the intent over, under the same token but as a turn of its own.

Intents have the key of Confluent's NOOP, whose values Confluent's registry never reads; compaction leaves one of them.
This holds on any broker and needs no clock. What it cannot exclude is a writer frozen between its last look at the log
and its write, for so long that others take its intent over and change the same key again, or that compaction removes
the intent unfinished. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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

    pending: Intent | None = None
    """The last accepted intent, with those of its records only that are still to come; None when all have come."""
    _completed: dict[str, bool] = field(default_factory=dict)

    def noop(self, offset: int, value: bytes | None) -> None:
        intent = Intent.decode(value)
        if intent is not None and intent.seen == offset - 1:
            self.pending = intent

    def changed(self, record: Record) -> None:
        if self.pending is None or record != self.pending.records[0]:
            return
        rest = self.pending.records[1:]
        if rest:
            self.pending = replace(self.pending, records=rest)
            return
        if self.pending.token in self._completed:
            self._completed[self.pending.token] = True
        self.pending = None

    def watch(self, token: str) -> None:
        """Take note when all records of this intent have come."""
        self._completed[token] = False

    def unwatch(self, token: str) -> None:
        self._completed.pop(token, None)

    def completed(self, token: str) -> bool:
        """Whether all records of a watched intent have come, whoever wrote them."""
        return self._completed.get(token, False)

    def outstanding(self, token: str) -> Sequence[Record]:
        """The records still to come if it is this intent's turn; none if it is not, or not any more."""
        return self.pending.records if self.pending is not None and self.pending.token == token else ()
