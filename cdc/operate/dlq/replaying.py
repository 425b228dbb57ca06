"""``cdc dlq replay``: what was put aside is mirrored after all, and nothing newer overwritten (EXACTNESS.md H21).

A letter's bytes are applied only if its topic holds no later record of its key: to a sink they would be a replay (H18),
so they do not go through the topic, but under the guard of their partition straight into the store. Everything else is
read again at the source, which gives it a new position.

A run may be interrupted and repeated: applying the last record of a key twice changes nothing, and a letter that was
dealt with has a receipt in the queue.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from cdc.config import Config, ConnectorSpec
from cdc.errors import ConfigError, Finding, RetriableError
from cdc.kafka.reader import TopicReader, retention
from cdc.mirror.fold import PATCH
from cdc.mirror.store import Batch, GuardLost, Partition, Refusal, Store
from cdc.operate.dlq.letters_of import Bearings, Rows
from cdc.operate.dlq.queue import Entry, answered, connector_of, read_queue, with_registry
from cdc.operate.dlq.reread import Reread, read_again, reread_of
from cdc.plugin import SinkConnector, TaskContext

__all__ = ["Outcome", "Report", "render_replay", "replay"]

PATIENCE_S: Final = 15.0
"""How long a running sink may take to confirm its last batch, or keep writing in between."""
FOLLOW_S: Final = 0.005
"""How long to wait for one more record of the topic between two attempts: less than a busy sink takes to write it."""
SILENCE_S: Final = 30.0
READ_RECORDS: Final = 1000

APPLIED: Final = "applied"
SUPERSEDED: Final = "superseded"
"""A later letter of its row was applied, or removed it."""
VOID: Final = "void"
"""The row is gone since: its table was truncated."""
REREAD: Final = "read again"
"""The source has told the row again, as it is now."""
OPEN: Final = "open"


@dataclass(slots=True)
class Outcome:
    """What became of one letter. While it is `OPEN`, ``reason`` says why and what to do."""

    letter: str
    topic: str
    partition: int
    offset: int
    outcome: str
    reason: str = ""


@dataclass(slots=True)
class Report:
    """What became of the letters."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether no letter is open any more."""
        return all(outcome.outcome != OPEN for outcome in self.outcomes)


def replay(
    config: Config, connector: str, letters: Sequence[str] = (), tell: Callable[[str], None] = lambda _text: None
) -> Report:
    """Replay the open letters of a connector, or some of them by their ids.

    `ConfigError` if there are none such, `RetriableError` when a part is away. ``tell`` hears of progress.
    """
    spec, queue = connector_of(config, connector)
    entries = read_queue(spec, queue)
    if unknown := sorted(set(letters) - {entry.id for entry in entries}):
        remedy = "cdc dlq list names the open ones"
        raise ConfigError([Finding(f"there is no open letter {', '.join(unknown)} in {queue}", remedy=remedy)])
    report = Report()
    asked: dict[str, Reread] = {}
    with with_registry(config, spec.worker) as worker:
        chosen = [entry for entry in entries if not letters or entry.id in letters]
        parts: dict[Partition, list[Entry]] = {}
        for entry in chosen:
            parts.setdefault(Partition(entry.letter.topic, entry.letter.partition), []).append(entry)
        rows = Rows(spec, worker)
        try:
            for part, found in sorted(parts.items()):
                tell(f"{part}: {len(found)} letters")
                outcomes = _Partition(config, spec, rows, part, entries, asked).replay(found)
                report.outcomes += outcomes
                done = {outcome.letter for outcome in outcomes if outcome.outcome != OPEN}
                answered(spec, queue, [entry.letter for entry in found if entry.id in done])
        finally:
            rows.close()
    if asked:
        tell(f"{len(asked)} rows are to be read again")
        told = read_again(config, list(asked.values()))
        by_id = {entry.id: entry for entry in entries}
        for outcome in report.outcomes:
            if outcome.letter in asked:
                row = asked[outcome.letter]
                if told[row]:
                    outcome.reason += f", and {told[row]}. The command is: {row.command}"
                else:
                    outcome.outcome = REREAD
        done = {each.letter for each in report.outcomes if each.outcome == REREAD}
        answered(spec, queue, [by_id[letter].letter for letter in sorted(done)])
    return report


class _Partition:
    """Replays letters of one partition of a topic."""

    def __init__(
        self,
        config: Config,
        spec: ConnectorSpec,
        rows: Rows,
        part: Partition,
        entries: Sequence[Entry],
        asked: dict[str, Reread],
    ) -> None:
        """``asked`` gets, by letter, what is to be read again."""
        self._config = config
        self._spec = spec
        self._rows = rows
        self._part = part
        self._open = {
            entry.letter.offset for entry in entries if (entry.letter.topic, entry.letter.partition) == tuple(part)
        }
        """Offsets of records that were not applied."""
        self._asked = asked

    def replay(self, entries: Sequence[Entry]) -> list[Outcome]:
        if not isinstance(self._spec.connector, SinkConnector) or self._part.number < 0:
            return [self._again(entry, "a source's record was never in its topic") for entry in entries]
        whole = []
        outcomes = []
        for entry in sorted(entries, key=lambda each: each.letter.offset):
            if entry.letter.size >= 0:
                outcomes.append(self._again(entry, "its value was too large for the queue"))
            elif entry.key is None:
                outcomes.append(_outcome(entry, VOID, "a record without key is not mirrored"))
            else:
                whole.append(entry)
        if whole:
            outcomes += self._apply(whole)
        return outcomes

    def _apply(self, entries: Sequence[Entry]) -> list[Outcome]:
        connector = self._spec.connector
        context = TaskContext(self._spec.name, 0, "dlq", lambda _name, _value: None, lambda: False)
        store: Store = connector.store(context)  # type: ignore[attr-defined]
        try:
            with TopicReader(self._rows.worker, self._part.topic, "letters") as reader:
                if self._part.number not in reader.partitions():
                    return [self._again(entry, f"{self._part} is not there any more") for entry in entries]
                gone, entries = self._forgotten(reader, entries)
                outcomes = [self._again(entry, why) for entry, why in gone]
                if not entries:
                    return outcomes
                bearings = Bearings(self._rows, self._part, entries, self._open)
                reach = _Reach(reader, self._part, bearings)
                for row, letters in bearings.groups.items():
                    outcomes += self._apply_group(store, reach, row, letters)
                return outcomes
        finally:
            store.close()

    def _forgotten(
        self, reader: TopicReader, entries: Sequence[Entry]
    ) -> tuple[list[tuple[Entry, str]], Sequence[Entry]]:
        """Letters behind which the topic may have lost a later record of their row, each with how; and the others.

        Compaction removes a record only for the sake of a later one of its key, and tombstones after a while.
        """
        kept = retention(self._rows.worker, self._part.topic)
        low, _ = reader.bounds([self._part.number])[self._part.number]
        now = time.time_ns() // 1_000_000
        gone, rest = [], []
        for entry in entries:
            if entry.letter.offset + 1 < low:
                gone.append((entry, f"the topic has lost what came behind it, up to offset {low}"))
            elif kept is not None and kept.may_lack_tombstones(entry.timestamp, now):
                gone.append((entry, "it is older than the topic keeps deletes, so that its row may be gone"))
            else:
                rest.append(entry)
        return gone, rest

    def _apply_group(self, store: Store, reach: _Reach, row: bytes, entries: list[Entry]) -> list[Outcome]:
        """The letters of one row, in order."""
        reach.read_on()
        deadline = time.monotonic() + PATIENCE_S
        prepared: _Prepared | None = None
        while True:
            try:
                found = self._try(store, reach, row, entries, prepared)
            except GuardLost:
                found = None
                if time.monotonic() <= deadline:
                    continue  # at once: the sink wrote just now, and what it wrote has been read already
            if isinstance(found, _Prepared):
                prepared = found
                continue
            if found is not None:
                return found
            if time.monotonic() > deadline:
                why = (
                    "the sink has a batch that nobody confirmed, or wrote between each look at its offset and the write"
                )
                return [_outcome(entry, OPEN, f"{why}. Run the sink, and try again") for entry in entries]
            reach.read_on()

    def _try(
        self, store: Store, reach: _Reach, row: bytes, entries: list[Entry], prepared: _Prepared | None
    ) -> list[Outcome] | _Prepared | None:
        """Outcomes; or the change, to be made at the next attempt; or ``None`` if it cannot be told yet.

        Between the look at the offset and the write lies nothing but the two: a busy sink writes every few ms.
        """
        stored = store.take([self._part]).get(self._part)
        last = entries[-1].letter.offset
        if stored is None or stored.next <= last:
            return [_outcome(entry, OPEN, "the sink has yet to read it, and will mirror it then") for entry in entries]
        if stored.next > reach.end:
            return None
        if stored.previous is not None and stored.previous.next <= last:
            return None  # that batch may be written again, with what is older than this
        truncated, later = reach.bearings.truncated, reach.bearings.later[row]
        if truncated > last:
            return [_outcome(entry, VOID) for entry in entries]
        if later > last:
            why = f"the topic has a later record of its key at offset {later}"
            return [self._again(entry, why) for entry in entries]
        if prepared is None:
            return self._prepare(store, max(later, truncated), entries)
        refusals: Sequence[Refusal] = ()
        if prepared.batch.ops:
            store.write(prepared.batch)
            refusals = store.settle()
        if refusals:
            reason = f"the store refuses {refusals[0].key.decode('utf-8', 'replace')!r}: {refusals[0].reason}"
            return [_outcome(entry, OPEN, reason) for entry in entries]
        return [_outcome(entry, APPLIED if entry is entries[-1] else SUPERSEDED) for entry in entries]

    def _prepare(self, store: Store, behind: int, entries: list[Entry]) -> list[Outcome] | _Prepared:
        """What the letters behind an offset come to; outcomes if that is nothing that can be applied."""
        suffix = [entry for entry in entries if entry.letter.offset > behind]
        batch, faults = self._rows.batch(self._part, suffix, store.tables())
        if faults:
            other = "a later letter of its row is still at fault"
            return [_outcome(entry, OPEN, faults.get(entry.id, other)) for entry in entries]
        if any(op[0] == PATCH for op in batch.ops.values()) and len(suffix) < len(entries):
            return [self._again(entry, "a later record has only a part of its row") for entry in entries]
        return _Prepared(Batch(ops=batch.ops, sources=batch.sources, entries=batch.entries, versions=batch.versions))

    def _again(self, entry: Entry, why: str) -> Outcome:
        found: Reread | str = reread_of(self._config, self._rows, entry)
        if isinstance(found, str):
            return _outcome(entry, OPEN, f"{why}; {found}")
        self._asked[entry.id] = found
        return _outcome(entry, OPEN, why)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A change that is ready to be made."""

    batch: Batch


class _Reach:
    """How far a partition was read, and what was found."""

    def __init__(self, reader: TopicReader, part: Partition, bearings: Bearings) -> None:
        self._reader = reader
        self._number = part.number
        self.bearings = bearings
        [(_, high)] = reader.bounds([part.number]).values()
        reader.go({part.number: bearings.first + 1})
        reader.expect({part.number: high})

    @property
    def end(self) -> int:
        return self._reader.positions[self._number]

    def read_on(self) -> None:
        """Read to the end of the topic; from then on what has come behind it."""
        heard = time.monotonic()
        while True:
            found = self._reader.fetch(READ_RECORDS, FOLLOW_S)
            for message in found:
                self.bearings.passed(message)
            if not self._reader.left:
                return
            if found:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise RetriableError(f"reading the topic: no answer for {SILENCE_S:.0f} s")


def _outcome(entry: Entry, outcome: str, reason: str = "") -> Outcome:
    letter = entry.letter
    return Outcome(entry.id, letter.topic, letter.partition, letter.offset, outcome, reason)


def render_replay(report: Report, output: Literal["text", "json"]) -> str:
    """For a person, or for a program."""
    if output == "json":
        return json.dumps({"letters": [asdict(outcome) for outcome in report.outcomes], "done": report.done}, indent=2)
    if not report.outcomes:
        return "no open letters"
    return "\n".join(
        f"{each.letter}  {each.topic}[{each.partition}] offset {each.offset}: {each.outcome}"
        + (f": {each.reason}" if each.reason else "")
        for each in report.outcomes
    )
