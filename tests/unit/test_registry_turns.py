"""Several writers on one log: every interleaving, crashes and compaction leave each id one schema, for ever.

The writers here are models of `cdc.registry.store.SchemaStore` that stop between any two steps, so that hypothesis
can order them as it likes; the store itself races in threads in ``test_registry_store.py``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.registry.plans import SchemaRequest, register
from cdc.registry.records import Key, Kind, Record, SchemaVersion
from cdc.registry.state import RegistryState
from cdc.registry.turns import Intent, Turns

Topic = list[tuple[int, Record]]
"""Offsets and records: compaction leaves gaps between offsets."""


class Writer:
    """Registers schemas one after the other; each `next` on `run` is one step that nobody interrupts."""

    def __init__(self, topic: Topic, name: str, work: list[tuple[str, str]], answers: list[SchemaVersion]) -> None:
        self._topic = topic
        self._name = name
        self._work = work
        self._answers = answers
        self._state = RegistryState()
        self._read = -1
        self.turn_since: int | None = None
        """Offset of the intent whose turn this may be."""

    def run(self) -> Iterator[None]:
        for i, (subject, schema) in enumerate(self._work):
            attempt = 0
            while True:
                self._catch_up()
                yield
                pending = self._state.turns.pending
                if pending is not None:
                    yield from self._take_turn(replace(pending, seen=self._read))
                    continue
                plan = register(self._state, subject, SchemaRequest(schema), normalize=False)
                attempt += 1
                intent = Intent(f"{self._name}-{i}-{attempt}", self._read, tuple(plan.records))
                if not intent.records or (yield from self._take_turn(intent)):
                    self._answers.append(plan.answer)
                    break

    def _take_turn(self, intent: Intent) -> Generator[None, None, bool]:
        turns = self._state.turns
        turns.watch(intent.token)
        yield
        self.turn_since = self._append(intent.record())
        yield
        self._catch_up()
        for record in turns.outstanding(intent.token):
            yield
            self._append(record)
        yield
        self._catch_up()
        self.turn_since = None
        return turns.completed(intent.token)

    def _append(self, record: Record) -> int:
        offset = self._topic[-1][0] + 1 if self._topic else 0
        self._topic.append((offset, record))
        return offset

    def _catch_up(self) -> None:
        for offset, record in self._topic:
            if offset > self._read:
                assert self._state.apply(offset, record.key, record.value) is None
                self._read = offset


def compacted(topic: Topic, end: int) -> Topic:
    """The topic after the cleaner has been over its first ``end`` records."""
    last = {record.key: offset for offset, record in topic[:end]}
    return [(offset, record) for offset, record in topic[:end] if last[record.key] == offset] + topic[end:]


def read(topic: Topic) -> RegistryState:
    state = RegistryState()
    for offset, record in topic:
        assert state.apply(offset, record.key, record.value) is None
    return state


_work = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(['"int"', '"long"', '"string"', '"double"'])), max_size=4
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_work, min_size=2, max_size=4), st.data())
def test_every_answer_holds_for_ever_and_an_id_means_one_schema(
    work: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    topic: Topic = [(0, Record(Key(Kind.CONFIG).encode(), b'{"compatibilityLevel":"NONE"}'))]
    answers: list[SchemaVersion] = []
    waiting = [Writer(topic, f"w{i}", tasks, answers) for i, tasks in enumerate(work)]
    running = [(writer, writer.run()) for writer in (waiting.pop(), waiting.pop())]
    while running:
        turn = data.draw(st.integers(0, len(running) - 1))
        event = data.draw(st.sampled_from(["step"] * 12 + ["crash", "compact"]))
        if event == "compact":
            # The one assumption: nobody is frozen in its turn until the cleaner comes past.
            turns = [writer.turn_since for writer, _ in running if writer.turn_since is not None]
            cleanable = [i for i, (offset, _) in enumerate(topic) if offset < min(turns, default=offset + 1)]
            topic[:] = compacted(topic, data.draw(st.integers(0, len(cleanable))))
        elif event == "crash" or next(running[turn][1], "done") == "done":
            running.pop(turn)
            if waiting:
                running.append((waiting[-1], waiting.pop().run()))

    ends = [topic, compacted(topic, len(topic)), compacted(topic, len(topic) // 2)]
    for end in ends:
        state = read(end)
        for answer in answers:
            assert answer in state.versions(answer.subject)
            assert state.by_id(answer.id) is not None
            assert state.by_id(answer.id).schema == answer.schema  # type: ignore[union-attr]
    schemas: dict[int, str] = {}
    for subject in state.subjects():
        for version in state.versions(subject):
            assert schemas.setdefault(version.id, version.schema) == version.schema
    assert len(set(schemas.values())) == len(schemas), "one schema, one id"


def test_of_two_writers_that_saw_the_same_the_first_has_its_turn() -> None:
    state = RegistryState()
    first = register(state, "a", SchemaRequest('"int"'), normalize=False)
    second = register(state, "a", SchemaRequest('"long"'), normalize=False)
    intents = [Intent("first", -1, tuple(first.records)), Intent("second", -1, tuple(second.records))]
    for offset, intent in enumerate(intents):
        state.turns.watch(intent.token)
        state.apply(offset, *intent.record())
    assert state.turns.outstanding("first") == tuple(first.records)
    assert state.turns.outstanding("second") == ()
    state.apply(2, *first.records[0])
    assert state.turns.pending is None
    assert (state.turns.completed("first"), state.turns.completed("second")) == (True, False)


def test_an_intent_behind_a_record_that_its_writer_had_not_read_is_stale() -> None:
    turns = Turns()
    turns.noop(6, Intent("t", 4, (Record(b"k2", b"{}"),)).record().value)
    assert turns.pending is None


def test_an_intent_taken_over_is_still_its_writers() -> None:
    turns = Turns()
    record = Record(b"k", b"{}")
    turns.watch("t")
    turns.noop(0, Intent("t", -1, (record,)).record().value)
    turns.noop(1, Intent("t", 0, (record,)).record().value)
    turns.changed(record)
    assert turns.completed("t")


def test_an_intent_of_several_records_is_pending_until_the_last_has_come() -> None:
    turns = Turns()
    first, second = Record(b"k", None), Record(b"j", b"{}")
    turns.watch("t")
    turns.noop(0, Intent("t", -1, (first, second)).record().value)
    turns.changed(first)
    assert turns.outstanding("t") == (second,)
    turns.changed(first)  # written twice: no harm
    assert not turns.completed("t")
    turns.changed(second)
    assert (turns.pending, turns.completed("t")) == (None, True)


def test_an_intent_replaced_by_another_has_lost_its_turn() -> None:
    turns = Turns()
    record = Record(b"k", b"{}")
    turns.watch("t")
    turns.noop(0, Intent("t", -1, (record,)).record().value)
    turns.noop(1, Intent("other", 0, (Record(b"j", b"{}"),)).record().value)
    turns.changed(record)
    assert turns.outstanding("t") == ()
    assert not turns.completed("t")


def test_confluents_own_noops_change_nothing() -> None:
    turns = Turns()
    turns.noop(2, None)
    turns.noop(3, b"anything")
    turns.noop(4, b'{"cdc.intent":{"token":"t","seen":3,"records":[]}}')
    assert turns.pending is None


@pytest.mark.parametrize(
    "records",
    [
        (Record(b'{"k":1}', None),),
        (Record(b'{"a": "spaced key"}', b'{"schema":"\\"\xc3\xa9\\""}'), Record(b"second", b"{}")),
    ],
)
def test_an_intent_gives_its_records_back_byte_for_byte(records: tuple[Record, ...]) -> None:
    intent = Intent("t", 7, records)
    assert intent.record().key == b'{"keytype":"NOOP","magic":0}'
    assert Intent.decode(intent.record().value) == intent
