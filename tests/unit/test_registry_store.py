"""`SchemaStore` in threads, on a log in memory: races, writers that died, a broker that is away."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from registry_memory import MemoryLog, MemoryTopic

from cdc.registry import admin, plans
from cdc.registry.errors import RegistryMisconfigured, RegistryUnavailable, RestError
from cdc.registry.plans import SchemaRequest
from cdc.registry.records import Record, SchemaVersion
from cdc.registry.state import RegistryState
from cdc.registry.store import LogReader, SchemaStore
from cdc.registry.turns import Intent


@pytest.fixture
def topic() -> Iterator[MemoryTopic]:
    topic = MemoryTopic()
    yield topic
    topic.close()


def register(store: SchemaStore, subject: str, schema: str) -> SchemaVersion:
    request = SchemaRequest(schema)
    return store.write(lambda state: plans.register(state, subject, request, normalize=False))


def record(name: str) -> str:
    return f'{{"type":"record","name":"{name}","fields":[]}}'


def by_id(store: SchemaStore, schema_id: int) -> str:
    def question(state: RegistryState) -> str:
        found = state.by_id(schema_id)
        if found is None:
            raise RestError(404, 40403, "Schema not found")
        return found.schema

    return store.read(question)


def test_stores_that_race_give_each_schema_one_id(topic: MemoryTopic) -> None:
    stores = [topic.store(timeout=60) for _ in range(4)]
    jobs = [(store, f"subject-{i % 5}-{i}", record(f"R{i % 12}")) for i in range(36) for store in stores]
    with ThreadPoolExecutor(len(stores) * 2) as pool:
        found = list(pool.map(lambda job: register(*job), jobs))
    ids = {version.schema: version.id for version in found}
    assert all(ids[version.schema] == version.id for version in found)
    assert sorted(ids.values()) == list(range(1, 13))
    fresh = topic.store()
    for version in found:
        assert by_id(fresh, version.id) == version.schema
    writes = Counter(record.key for record in topic.records if b'"SCHEMA"' in record.key)
    assert len(writes) == 36


def test_a_race_for_the_next_version_of_a_subject_leaves_no_gap_and_no_double(topic: MemoryTopic) -> None:
    stores = [topic.store(timeout=60) for _ in range(3)]
    register(stores[0], "s", '"null"')
    schemas = [
        f'{{"type":"record","name":"R","fields":[{{"name":"f{i}","type":"int","default":0}}]}}' for i in range(15)
    ]
    stores[0].write(lambda state: admin.set_config(state, None, {"compatibility": "NONE"}))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: register(stores[i % 3], "s", schemas[i]), range(15)))
    assert sorted(version.version for version in found) == list(range(2, 17))
    assert len({version.id for version in found}) == 15


def test_a_write_that_another_worker_left_half_done_is_completed(topic: MemoryTopic) -> None:
    planned = plans.register(RegistryState(), "s", SchemaRequest(record("A")), normalize=False)
    topic.records.append(Intent("dead", -1, tuple(planned.records)).record())
    store = topic.store()
    assert by_id_or_none(store, 1) is None
    assert register(store, "t", record("B")).id == 2
    assert by_id(store, 1) == record("A")
    assert [v.subject for v in topic.store().read(lambda state: state.uses(1) or [])] == ["s"]


def test_a_deletion_that_another_worker_left_half_done_is_completed(topic: MemoryTopic) -> None:
    store = topic.store()
    register(store, "s", record("A"))
    register(store, "s", '{"type":"record","name":"A","fields":[{"name":"b","type":"int","default":0}]}')
    store.write(lambda state: admin.delete_subject(state, "s", permanent=False))
    plan = store.read(lambda state: admin.delete_subject(state, "s", permanent=True))
    intent = Intent("dead", len(topic.records) - 1, tuple(plan.records))
    MemoryLog(topic).append([intent.record(), plan.records[0]])
    register(store, "t", record("B"))
    assert store.read(lambda state: state.subjects(deleted=True)) == ["t"]


def by_id_or_none(store: SchemaStore, schema_id: int) -> SchemaVersion | None:
    return store.read(lambda state: state.by_id(schema_id))


def test_what_another_worker_has_just_written_is_found(topic: MemoryTopic) -> None:
    writer, reader = topic.store(), topic.store()
    for i in range(20):
        version = register(writer, "s" + str(i), record(f"R{i}"))
        assert by_id(reader, version.id) == version.schema


def test_a_write_that_changes_nothing_writes_nothing(topic: MemoryTopic) -> None:
    store = topic.store()
    register(store, "s", record("A"))
    before = len(topic.records)
    register(store, "s", record("A"))
    assert len(topic.records) == before


def test_a_refused_write_writes_nothing_and_the_next_one_goes_on(topic: MemoryTopic) -> None:
    store = topic.store()
    with pytest.raises(RestError):
        register(store, "s", "{")
    assert topic.records == []
    assert register(store, "s", record("A")).id == 1


def test_nothing_is_answered_before_the_topic_has_been_read(topic: MemoryTopic) -> None:
    store = SchemaStore(MemoryLog(topic))
    with pytest.raises(RegistryUnavailable, match="still reading"):
        store.read(lambda state: state.subjects())
    with pytest.raises(RegistryUnavailable, match="still reading"):
        register(store, "s", record("A"))


def test_a_broker_that_is_away_is_told_apart_from_a_schema_that_is_missing(topic: MemoryTopic) -> None:
    store = topic.store(timeout=0.5)
    version = register(store, "s", record("A"))
    topic.refuse = True
    assert by_id(store, version.id) == version.schema
    with pytest.raises(RegistryUnavailable):
        by_id(store, 99)
    with pytest.raises(RegistryUnavailable):
        register(store, "s", record("B"))
    topic.refuse = False
    with pytest.raises(RestError):
        by_id(store, 99)
    assert register(store, "t", record("B")).id == 2


def test_start_waits_for_a_broker_that_is_away(topic: MemoryTopic) -> None:
    topic.refuse = True
    store = SchemaStore(MemoryLog(topic))
    topic.stores.append(store)
    starting = threading.Thread(target=store.start)
    starting.start()
    topic.refuse = False
    starting.join()
    assert store.read(lambda state: state.subjects()) == []


def test_start_gives_up_in_time(topic: MemoryTopic) -> None:
    topic.refuse = True
    store = SchemaStore(MemoryLog(topic), start_timeout=0.2)
    topic.stores.append(store)
    with pytest.raises(RegistryUnavailable):
        store.start()


def test_after_closing_every_request_says_so(topic: MemoryTopic) -> None:
    store = topic.store()
    store.close()
    with pytest.raises(RegistryUnavailable, match="stopped"):
        store.read(lambda state: state.subjects())
    with pytest.raises(RegistryUnavailable, match="stopped"):
        register(store, "s", record("A"))
    with pytest.raises(RegistryUnavailable, match="stopped"):
        store.start()


def test_a_log_that_failed_for_good_fails_who_waits(topic: MemoryTopic) -> None:
    class Broken(MemoryLog):
        """Its reader fails when the first record is written."""

        def start(self, reader: LogReader) -> None:
            self.reader = reader

        def append(self, records: Sequence[Record]) -> int:
            self.reader.failed(RegistryMisconfigured("the topic was made again"))
            return len(records)

    store = SchemaStore(Broken(topic), timeout=30)
    topic.stores.append(store)
    store.start()
    with pytest.raises(RegistryMisconfigured, match="made again"):
        register(store, "s", record("A"))
    assert isinstance(store.failure, RegistryMisconfigured)


def test_a_topic_that_is_slow_ends_in_an_error_that_says_how_far_it_got(topic: MemoryTopic) -> None:
    class Deaf(MemoryLog):
        """It takes records and never tells them."""

        def append(self, records: Sequence[Record]) -> int:
            return 4 + len(records)

    store = SchemaStore(Deaf(topic), timeout=0.2)
    topic.stores.append(store)
    store.start()
    with pytest.raises(RegistryUnavailable, match="up to offset 6"):
        register(store, "s", record("A"))


def test_a_topic_that_was_made_again_is_noticed_at_the_first_write(topic: MemoryTopic) -> None:
    store = topic.store()
    register(store, "s", record("A"))
    topic.records.clear()
    with pytest.raises(RegistryMisconfigured, match="made again"):
        register(store, "t", record("B"))
    assert isinstance(store.failure, RegistryMisconfigured)
    assert all(b"SCHEMA" not in written.key for written in topic.records)


def test_records_that_are_none_are_counted(topic: MemoryTopic) -> None:
    topic.records.append(Record(b"not json", b"{}"))
    store = topic.store()
    assert store.skipped == 1
    assert register(store, "s", record("A")).id == 1
