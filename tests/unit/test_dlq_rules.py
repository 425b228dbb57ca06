"""When a letter's bytes may be applied: the rules of ``cdc dlq replay``, on a store and a topic of lists (H21)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from mirror_feed import Memory, Record

from cdc.config import Config, ConnectorSpec, loads
from cdc.kafka.reader import Retention
from cdc.mirror.store import Batch, GuardLost, Partition, Previous, Refusal, StoredOffset
from cdc.mirror.tables import Tables
from cdc.operate.dlq import replaying
from cdc.operate.dlq.letters_of import Rows
from cdc.operate.dlq.queue import Entry
from cdc.operate.dlq.replaying import Outcome, _Partition
from cdc.operate.dlq.reread import Reread
from cdc.record import HEADER_UNKNOWN
from cdc.runtime.letters import Letter

KEPT = Retention(compacted=True, timed=False, tombstones_ms=None)
TOPIC = "shop.public.t"
PART = Partition(TOPIC, 0)
FIELDS = [{"field": "id", "type": "int32"}, {"field": "v", "type": "string", "optional": True}]


@pytest.fixture(scope="module")
def config() -> Config:
    sink = {
        "connector.class": "redis",
        "topics.regex": r"shop\..*",
        "key.converter": "json",
        "value.converter": "json",
        "errors.deadletterqueue.topic.name": "dlq",
    }
    source = {"connector.class": "postgres", "database.user": "u", "database.dbname": "d", "topic.prefix": "shop"}
    form = {"worker": {"bootstrap.servers": "localhost:1"}, "connectors": {"cache": sink, "shop": source}}
    return loads({"bridge.json": json.dumps(form)})


def key(number: int, space: str = "") -> bytes:
    schema = {"type": "struct", "fields": FIELDS[:1]}
    return json.dumps({"schema": schema, "payload": {"id": number}}, separators=(",", ":" + space)).encode()


def value(number: int, text: str | None, op: str = "u") -> bytes:
    row = {"type": "struct", "fields": FIELDS, "optional": True, "name": "V"}
    fields = [{**row, "field": "before"}, {**row, "field": "after"}, {"field": "op", "type": "string"}]
    after = None if op in "dt" else {"id": number, "v": text}
    before = {"id": number, "v": None} if op == "d" else None
    payload = {"before": before, "after": after, "op": op}
    return json.dumps({"schema": {"type": "struct", "fields": fields}, "payload": payload}).encode()


def letter(offset: int, number: int, content: bytes | None = None, headers: Any = (), space: str = "") -> Entry:
    told = Letter("cache", 0, TOPIC, 0, offset, "TASK_PUT", "x.Y", "no")
    content = value(number, f"letter {offset}") if content is None else content
    return Entry((0, offset), told, key(number, space), content, tuple(headers), 0)


def behind(offset: int, key_bytes: bytes, content: bytes) -> Record:
    """A record of the topic."""
    return Record(offset, key_bytes, content, name=TOPIC)


class Topic:
    """Records behind the letters, in place of a reader of their topic. ``grows`` is appended at the second look."""

    def __init__(self, *records: Record, end: int = 0, grows: Sequence[Record] = ()) -> None:
        self.records = list(records)
        self.grows = list(grows)
        self.end = end
        self.low = 0
        self.looks = self.at = 0
        self.left: list[int] = []

    def __enter__(self) -> Topic:
        return self

    def __exit__(self, *_: object) -> None: ...

    def partitions(self) -> list[int]:
        return [0]

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        return dict.fromkeys(partitions, (self.low, self.end))

    def go(self, begins: Mapping[int, int]) -> None:
        self.at = begins[0]

    def expect(self, ends: Mapping[int, int]) -> None: ...

    @property
    def positions(self) -> dict[int, int]:
        return {0: self.end}

    def fetch(self, most: int, timeout: float) -> list[Record]:
        del most, timeout
        self.looks += 1
        if self.looks == 2:
            self.records += self.grows
        found = [record for record in self.records if record.at >= self.at]
        self.at = self.end = max([self.end, self.at, *(record.at + 1 for record in found)])
        return found


class Store:
    """Holds an offset; ``losses`` is how often somebody else writes first."""

    def __init__(self, held: StoredOffset | None, losses: int = 0, refuses: str = "") -> None:
        self._memory = Memory()
        self.held = held
        self.losses = losses
        self.refuses = refuses
        self.batches: list[Batch] = []

    def take(self, partitions: Any) -> Mapping[Partition, StoredOffset]:
        del partitions
        return {} if self.held is None else {PART: self.held}

    @property
    def rows(self) -> Mapping[bytes, Mapping[bytes, bytes]]:
        return self._memory.rows

    def tables(self) -> Tables:
        return self._memory.tables

    def settle(self) -> Sequence[Refusal]:
        if self.losses:
            self.losses -= 1
            raise GuardLost("another writer")
        if self.refuses:
            return [Refusal(next(iter(self.batches[-1].ops)), PART, 0, self.refuses)]
        return ()

    def write(self, batch: Batch) -> None:
        assert not batch.offsets
        self.batches.append(batch)
        self._memory.write(batch)

    def close(self) -> None: ...


class World:
    def __init__(self, config: Config, monkeypatch: pytest.MonkeyPatch, topic: Topic, store: Store) -> None:
        self.spec: ConnectorSpec = next(spec for spec in config.connectors if spec.name == "cache")
        self.config, self.store, self.topic = config, store, topic
        monkeypatch.setattr(replaying, "TopicReader", lambda *_: topic)
        monkeypatch.setattr(replaying, "retention", lambda *_: KEPT)
        monkeypatch.setattr(replaying, "PATIENCE_S", 0.0)
        monkeypatch.setattr(type(self.spec.connector), "store", lambda *_: store)
        self.asked: dict[str, Reread] = {}

    def replay(self, *entries: Entry) -> list[Outcome]:
        rows = Rows(self.spec, self.spec.worker)
        return _Partition(self.config, self.spec, rows, PART, entries, self.asked).replay(entries)


def at(offset: int, previous: int | None = None) -> StoredOffset:
    return StoredOffset(offset, previous=None if previous is None else Previous(previous, {}))


def kinds(outcomes: Sequence[Outcome]) -> list[tuple[int, str]]:
    return [(each.offset, each.outcome) for each in outcomes]


def test_the_last_letter_of_a_row_is_applied_and_others_with_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(config, monkeypatch, Topic(behind(4, key(9), value(9, "other")), end=5), Store(at(5)))
    found = world.replay(letter(1, 1), letter(3, 1), letter(2, 2))
    assert kinds(found) == [(1, "superseded"), (3, "applied"), (2, "applied")]
    assert world.store.rows == {
        b"t:1": {b"id": b"1", b"v": b"letter 3"},
        b"t:2": {b"id": b"2", b"v": b"letter 2"},
    }


def test_a_part_of_a_row_is_applied_on_the_letter_before_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(config, monkeypatch, Topic(end=5), Store(at(5)))
    part = letter(3, 1, value(1, "filler"), [(HEADER_UNKNOWN, b'["v"]')])
    assert kinds(world.replay(letter(1, 1), part)) == [(1, "superseded"), (3, "applied")]
    assert world.store.rows == {b"t:1": {b"id": b"1", b"v": b"letter 1"}}


@pytest.mark.parametrize("space", ["", " "])
def test_a_later_record_of_the_row_forbids_it_whatever_its_key_looks_like(
    config: Config, monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    later = behind(4, key(1, space), value(1, "newer"))
    world = World(config, monkeypatch, Topic(later), Store(at(5)))
    assert kinds(world.replay(letter(1, 1))) == [(1, "open")]
    assert world.store.batches == []
    assert [row.table for row in world.asked.values()] == ["public.t"]
    assert [row.where for row in world.asked.values()] == ['"id" = 1']


def test_a_later_record_that_is_a_letter_as_well_does_not(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(config, monkeypatch, Topic(behind(3, key(1), value(1, "a letter"))), Store(at(5)))
    world.topic.end = 5
    assert kinds(world.replay(letter(1, 1), letter(3, 1)))[-1] == (3, "applied")


def test_a_truncate_makes_it_void(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(config, monkeypatch, Topic(behind(2, b"null", value(0, None, "t"))), Store(at(3)))
    assert kinds(world.replay(letter(1, 1))) == [(1, "void")]


def test_what_came_while_it_was_read_is_looked_at_too(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink is further than the reader: it may have written the row's newer record."""
    topic = Topic(behind(2, key(9), value(9, "x")), grows=[behind(3, key(1), value(1, "newer"))])
    world = World(config, monkeypatch, topic, Store(at(4)))
    monkeypatch.setattr(replaying, "PATIENCE_S", 60.0)
    assert kinds(world.replay(letter(1, 1))) == [(1, "open")]
    assert topic.looks == 2
    assert world.store.batches == []


def test_a_batch_that_may_be_applied_again_is_waited_for(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(config, monkeypatch, Topic(end=5), Store(at(5, previous=0)))
    [found] = world.replay(letter(1, 1))
    assert (found.outcome, world.store.batches) == ("open", [])
    assert "Run the sink" in found.reason
    world = World(config, monkeypatch, Topic(end=5), Store(at(5, previous=2)))  # which is all behind the letter
    assert kinds(world.replay(letter(1, 1))) == [(1, "applied")]


@pytest.mark.parametrize("held", [None, at(1)])
def test_what_the_sink_will_read_again_is_left_to_it(
    config: Config, monkeypatch: pytest.MonkeyPatch, held: StoredOffset | None
) -> None:
    world = World(config, monkeypatch, Topic(end=5), Store(held))
    [found] = world.replay(letter(1, 1))
    assert (found.outcome, world.store.batches) == ("open", [])
    assert "the sink has yet to read it" in found.reason


def test_a_writer_that_comes_between_is_no_harm(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(config, monkeypatch, Topic(end=5), Store(at(5), losses=2))
    monkeypatch.setattr(replaying, "PATIENCE_S", 60.0)
    assert kinds(world.replay(letter(1, 1))) == [(1, "applied")]


def test_what_is_still_at_fault_stays_open(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(config, monkeypatch, Topic(end=9), Store(at(9), refuses="WRONGTYPE"))
    bad, keyless, large = letter(1, 1, b"garbage"), letter(2, 2), letter(3, 3)
    keyless = Entry(keyless.place, keyless.letter, None, b"x", (), 0)
    told = Letter("cache", 0, TOPIC, 0, 3, "TASK_PUT", "x.Y", "no", size=10_000_000)
    large = Entry(large.place, told, large.key, None, (), 0)
    found = {each.offset: each for each in world.replay(bad, keyless, large, letter(4, 4))}
    assert {offset: each.outcome for offset, each in found.items()} == {1: "open", 2: "void", 3: "open", 4: "open"}
    assert "still at fault at VALUE_CONVERTER" in found[1].reason
    assert "too large" in found[3].reason
    assert "WRONGTYPE" in found[4].reason
    assert list(world.asked) == ["0-3"]
