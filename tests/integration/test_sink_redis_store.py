"""The Redis store alone: one atomic step, the guard, refusals, expiry, truncates (H16, H19, H21, H23)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
from passwords import MARK, password

from cdc.errors import FatalError, RetriableError
from cdc.local._ports import free_port
from cdc.local.redis import Redis, RedisServer
from cdc.mirror.fold import DELETE, PUT, REPLACE, Op
from cdc.mirror.keys import KeyColumn
from cdc.mirror.store import Arrival, Batch, GuardLost, Partition, Previous, StoredOffset
from cdc.mirror.tables import TableEntry
from cdc.plugin import TaskContext
from cdc.redis.barrier import Barrier
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector
from cdc.redis.store import RedisStore

pytestmark = pytest.mark.integration

Launch = Callable[[RedisServer], RedisServer]


class World:
    """One connector's stores on a server, under names of the test's own."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.name = f"s{uuid.uuid4().hex[:8]}"
        self.topic = f"{self.name}.public.rows"
        self.client: redis.Redis = server.client()
        self._stores: list[RedisStore] = []

    def connector(self, **settings: str) -> RedisSinkConnector:
        properties = {
            "name": self.name,
            "connector.class": "redis",
            "topics": self.topic,
            "redis.uri": self.server.url,
            "redis.key": self.name + ":{pk}",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        return RedisSinkConnector(RedisConfig.model_validate(properties))

    def store(self, *numbers: int, **settings: str) -> RedisStore:
        """A store that guards partitions, as a task has it."""
        context = TaskContext(self.name, 0, "test", lambda _name, _value: None, lambda: False)
        store = self.connector(**settings).store(context)
        self._stores.append(store)
        if numbers:
            store.take([self.part(number) for number in numbers])
        return store

    def part(self, number: int = 0) -> Partition:
        return Partition(self.topic, number)

    def key(self, row: str) -> bytes:
        return f"{self.name}:{row}".encode()

    def put(self, row: str, **fields: str) -> dict[bytes, Op]:
        pairs = [part.encode() for pair in fields.items() for part in pair]
        return {self.key(row): (PUT, pairs, (), 0, 7)}

    def batch(self, ops: dict[bytes, Op], offset: int, previous: int | None = None, number: int = 0) -> Batch:
        held = Previous(previous, {}) if previous is not None else None
        offsets = {self.part(number): StoredOffset(offset, previous=held)}
        return Batch(ops=ops, sources=[self.part(number)], offsets=offsets)

    def write(self, store: RedisStore, batch: Batch) -> Sequence[Any]:
        store.write(batch)
        return store.settle()

    def offset(self, number: int = 0) -> StoredOffset | None:
        text = self.client.get(f"__cdc:offset:{{{self.name}}}:{self.topic}:{number}")
        return None if text is None else StoredOffset.decode(text)

    def rows(self) -> dict[str, dict[str, str]]:
        keys = self.client.scan_iter(match=f"{self.name}:*", count=1000)
        return {
            key.decode().partition(":")[2]: {k.decode(): v.decode() for k, v in self.client.hgetall(key).items()}
            for key in keys
        }

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.client.hdel("__cdc:tables", f"{self.name} {self.topic}")
        self.client.close()


@pytest.fixture
def world(any_redis: RedisServer) -> Iterator[World]:
    made = World(any_redis)
    yield made
    made.close()


@pytest.fixture
def own(launch: Launch) -> Iterator[World]:
    """A world on a server that the test may reconfigure."""
    made = World(launch(Redis(appendonly=False)))
    yield made
    made.close()


# --- one atomic step -------------------------------------------------------------------------------------


def test_rows_and_offset_are_written_in_one_step(world: World) -> None:
    store = world.store(0)
    assert world.write(store, world.batch(world.put("1", a="x", b="y"), 5)) == ()
    assert world.rows() == {"1": {"a": "x", "b": "y"}}
    assert world.offset() == StoredOffset(5)
    assert store.take([world.part(0)]) == {world.part(0): StoredOffset(5)}


def test_nulls_are_removed_and_other_fields_stay(world: World) -> None:
    """A8, H23: an update replaces the columns it knows, and fields that are no columns stay."""
    store = world.store(0)
    world.client.hset(world.key("1"), mapping={"a": "old", "b": "old", "theirs": "z"})
    world.write(store, world.batch({world.key("1"): (PUT, [b"a", b""], (b"b",), 0, 0)}, 1))
    assert world.rows() == {"1": {"a": "", "theirs": "z"}}


def test_a_delete_removes_and_a_replacement_begins_anew(world: World) -> None:
    store = world.store(0)
    world.client.hset(world.key("1"), mapping={"a": "old"})
    world.client.hset(world.key("2"), mapping={"a": "old", "theirs": "z"})
    world.client.expire(world.key("2"), 1000)
    ops: dict[bytes, Op] = {
        world.key("1"): (DELETE, [], (), 0, 0),
        world.key("2"): (REPLACE, [b"b", b"new"], (b"a",), 0, 1),
    }
    world.write(store, world.batch(ops, 2))
    assert world.rows() == {"2": {"b": "new"}}
    assert world.client.ttl(world.key("2")) == -1


def test_a_batch_of_thousands_of_rows(world: World) -> None:
    store = world.store(0)
    ops = {key: op for n in range(5000) for key, op in world.put(str(n), text="x" * 500).items()}
    assert world.write(store, world.batch(ops, 5000)) == ()
    assert len(world.rows()) == 5000


def test_two_batches_need_no_other_look_at_the_guard(world: World) -> None:
    store = world.store(0)
    for offset in (1, 2, 3):
        assert world.write(store, world.batch(world.put("1", a=str(offset)), offset)) == ()
    assert world.offset() == StoredOffset(3)


def test_what_is_new_of_a_table_is_stored_with_its_first_row(world: World) -> None:
    store = world.store(0)
    entry = TableEntry(world.name, world.topic, world.name + ":{pk}", ((KeyColumn("id", "int8"),),), ("id",))
    batch = world.batch(world.put("1", id="1"), 1)
    batch.entries[world.topic] = entry
    world.write(store, batch)
    store.take([world.part(0)])
    assert store.tables().get(world.name, world.topic) == entry


# --- the guard -------------------------------------------------------------------------------------------


def test_a23_a_writer_that_lost_its_partition_cannot_write(world: World) -> None:
    zombie, owner = world.store(0), world.store(0)
    assert world.write(owner, world.batch(world.put("1", a="new"), 10)) == ()
    with pytest.raises(GuardLost):
        world.write(zombie, world.batch(world.put("1", a="old"), 5))
    assert world.rows() == {"1": {"a": "new"}}
    assert world.offset() == StoredOffset(10)
    with pytest.raises(GuardLost):
        zombie.write(world.batch(world.put("1", a="old"), 6))


def test_another_partition_s_owner_does_not_disturb(world: World) -> None:
    one, other = world.store(0), world.store(1)
    assert world.write(one, world.batch(world.put("1", a="x"), 1)) == ()
    assert world.write(other, world.batch(world.put("2", a="y"), 1, number=1)) == ()
    assert world.write(one, world.batch(world.put("1", a="z"), 2)) == ()


def test_h19_a_connection_that_was_killed_never_writes_without_a_watch(world: World) -> None:
    """Seen with redis-py left to itself: MULTI and EXEC succeed on a new connection without the WATCH."""
    store = world.store(0)
    assert world.write(store, world.batch(world.put("1", a="x"), 999)) == ()
    mine = [c for c in world.client.client_list() if c["name"] == f"cdc/{world.name}-0"]
    assert len(mine) == 1
    world.client.client_kill_filter(_id=mine[0]["id"])
    with pytest.raises(RetriableError, match="lost the connection"):
        world.write(store, world.batch(world.put("1", a="old"), 150))
    assert world.offset() == StoredOffset(999)
    with pytest.raises(GuardLost):
        store.write(world.batch(world.put("1", a="old"), 150))
    assert store.take([world.part(0)]) == {world.part(0): StoredOffset(999)}
    assert world.write(store, world.batch(world.put("1", a="y"), 1000)) == ()


def test_what_somebody_else_writes_while_idle_is_noticed(world: World) -> None:
    store = world.store(0)
    world.write(store, world.batch(world.put("1", a="x"), 5))
    store.verify()
    world.client.delete(f"__cdc:offset:{{{world.name}}}:{world.topic}:0")
    with pytest.raises(GuardLost, match="changed"):
        store.verify()


def test_a19_an_emptied_server_is_noticed_by_the_next_batch_and_while_idle(own: World) -> None:
    store = own.store(0)
    own.write(store, own.batch(own.put("1", a="x"), 5))
    own.client.flushall()
    with pytest.raises(GuardLost):
        own.write(store, own.batch(own.put("2", a="x"), 6))
    assert own.rows() == {}
    assert store.take([own.part(0)]) == {}
    own.write(store, own.batch(own.put("1", a="x"), 5))
    own.client.flushall()
    with pytest.raises(GuardLost):
        store.verify()


def test_new_tables_of_other_tasks_are_noticed(world: World) -> None:
    one, other = world.store(0), world.store(1)
    batch = world.batch(world.put("1", id="1"), 1)
    batch.entries[world.topic] = TableEntry(world.name, world.topic, "x:{pk}")
    world.write(one, batch)
    with pytest.raises(GuardLost):
        world.write(other, world.batch(world.put("2", id="2"), 1, number=1))


def test_seen_outcomes_are_confirmed(world: World) -> None:
    """H21: until then the offset tells where the last batch began."""
    store = world.store(0)
    world.write(store, world.batch(world.put("1", a="x"), 5, previous=3))
    assert world.offset() == StoredOffset(5, previous=Previous(3, {}))
    store.confirm()
    assert world.offset() == StoredOffset(5)


# --- refusals and outages --------------------------------------------------------------------------------


def test_a16_a_key_of_another_type_is_refused_with_its_coordinates_and_the_neighbours_are_applied(world: World) -> None:
    store = world.store(0)
    world.client.set(world.key("2"), "not ours")
    ops: dict[bytes, Op] = {
        **world.put("1", a="x"),
        world.key("2"): (PUT, [b"a", b"x"], (b"b",), 0, 41),
        **world.put("3", a="x"),
    }
    [refusal] = world.write(store, world.batch(ops, 50, previous=40))
    assert (refusal.key, refusal.partition, refusal.offset) == (world.key("2"), world.part(0), 41)
    assert refusal.reason.startswith("WRONGTYPE")
    assert world.client.get(world.key("2")) == b"not ours"
    assert world.client.hgetall(world.key("3")) == {b"a": b"x"}
    assert world.offset() == StoredOffset(50, previous=Previous(40, {}))


def test_a17_without_memory_nothing_of_a_batch_is_applied(own: World) -> None:
    store = own.store(0)
    own.write(store, own.batch(own.put("1", a="x"), 1))
    own.client.config_set("maxmemory", "1mb")
    with pytest.raises(RetriableError, match="OOM"):
        own.write(store, own.batch({**own.put("1", a="y"), **own.put("2", a="x" * 100)}, 2))
    assert own.rows() == {"1": {"a": "x"}}
    own.client.config_set("maxmemory", "0")
    assert store.take([own.part(0)]) == {own.part(0): StoredOffset(1)}
    assert own.write(store, own.batch(own.put("1", a="y"), 2)) == ()


def test_a21_a_replica_is_waited_out(own: World) -> None:
    store = own.store(0)
    own.client.replicaof("127.0.0.1", "1")
    with pytest.raises(RetriableError, match="READONLY"):
        own.write(store, own.batch(own.put("1", a="x"), 1))
    own.client.replicaof("NO", "ONE")
    store.take([own.part(0)])
    assert own.write(store, own.batch(own.put("1", a="x"), 1)) == ()


def test_a_user_without_permission_is_told_what_to_grant(own: World) -> None:
    own.client.execute_command("ACL", "SETUSER", "cdc", "on", ">" + password("redis cdc"), "~*", "+@all", "-hset")
    [finding] = own.connector(redis_username="cdc", redis_password=password("redis cdc")).check()
    assert finding.remedy == "ACL SETUSER cdc +hset"
    store = own.store(0, redis_username="cdc", redis_password=password("redis cdc"))
    with pytest.raises(FatalError, match=r"NOPERM.*Remedy: grant"):
        own.write(store, own.batch(own.put("1", a="x"), 1))
    own.client.execute_command("ACL", "SETUSER", "cdc", "+hset", "resetkeys", "~__cdc:*")
    [finding] = own.connector(redis_username="cdc", redis_password=password("redis cdc")).check()
    assert finding.remedy == f"ACL SETUSER cdc ~{own.name}:*"


def test_a_wrong_password_stops_and_is_not_repeated(own: World) -> None:
    own.client.config_set("requirepass", password("redis"))
    store = own.store(redis_password=password("wrong"))
    with pytest.raises(FatalError) as raised:
        store.take([own.part(0)])
    assert MARK not in str(raised.value)
    [finding] = own.connector(redis_password=password("wrong")).check()
    assert MARK not in str(finding)


def test_a31_an_eviction_policy_is_refused_with_the_statement_that_mends_it(own: World) -> None:
    own.client.config_set("maxmemory-policy", "allkeys-lru")
    [finding] = own.connector().check()
    assert finding.remedy == "CONFIG SET maxmemory-policy noeviction"
    with pytest.raises(FatalError, match="eviction policy is allkeys-lru"):
        own.store(0)


def test_a_cluster_s_node_is_refused_by_name(launch: Launch) -> None:
    own = World(launch(Redis(appendonly=False, settings={"cluster-enabled": "yes", "cluster-port": free_port()})))
    with pytest.raises(FatalError, match="Redis Cluster"):
        own.store(0)
    assert "Redis Cluster" in str(own.connector().check()[0])
    own.client.close()


def test_a_server_that_is_away_is_waited_for_and_found_by_the_check(own: World) -> None:
    own.server.stop()
    with pytest.raises(RetriableError, match=r"connecting to Redis at 127\.0\.0\.1"):
        own.store(0)
    assert own.connector().check()[0].key == "redis.uri"
    own.server.start()
    assert own.connector().check() == []


# --- expiry ----------------------------------------------------------------------------------------------


def test_a15_expiry_is_set_with_every_write_in_its_step(world: World) -> None:
    store = world.store(0, redis_ttl="1000")
    world.write(store, world.batch(world.put("1", a="x"), 1))
    assert 990 < world.client.ttl(world.key("1")) <= 1000
    world.client.expire(world.key("1"), 5)
    world.write(store, world.batch(world.put("1", a="y"), 2))
    assert 990 < world.client.ttl(world.key("1")) <= 1000


def test_expiry_that_is_no_longer_configured_is_taken_from_the_rows_there_are(world: World) -> None:
    store = world.store(0, redis_ttl="1000")
    batch = world.batch({**world.put("1", a="x"), **world.put("2", a="x")}, 1)
    shapes = ((KeyColumn("id"),),)
    batch.entries[world.topic] = TableEntry(world.name, world.topic, world.name + ":{pk}", shapes, ("a",), ttl=1000)
    world.write(store, batch)
    store = world.store(0)

    def configured() -> int | None:
        text = world.client.hget("__cdc:tables", f"{world.name} {world.topic}")
        assert text is not None
        return TableEntry.decode(text).ttl

    for _ in range(1000):  # as many pages as the shared server has keys
        store.advance()
        if configured() is None:
            break
    assert configured() is None
    assert [world.client.ttl(world.key(row)) for row in "12"] == [-1, -1]


# --- truncates -------------------------------------------------------------------------------------------

POSITION = "00000001.0000000000000064.00000007.00000000"


def filled(world: World, *stores: RedisStore) -> None:
    """Rows of the table, and of others; partition n stands in front of a truncate at offset 5."""
    for number, store in enumerate(stores):
        ops = {key: op for n in range(1500) for key, op in world.put(f"{number}{n:04d}", a="x").items()}
        batch = world.batch(ops, 5, number=number)
        if number == 0:
            shapes = ((KeyColumn("id", "int8"),),)
            batch.entries[world.topic] = TableEntry(world.name, world.topic, world.name + ":{pk}", shapes, ("a",))
        for held in stores:
            held.take([world.part(stores.index(held))])
        assert world.write(store, batch) == ()
    world.client.hset(f"{world.name}:5:other", "a", "not of this table")
    world.client.hset(f"{world.name}-else:5", "a", "not of this table")
    for number, store in enumerate(stores):
        store.take([world.part(number)])


def arrive(world: World, store: RedisStore, number: int, of: int, position: str = POSITION, offset: int = 5) -> None:
    store.arrive([Arrival(world.part(number), "shop/slot", position, offset)], {world.topic: of})


def passing(world: World, store: RedisStore, number: int, position: str = POSITION, offset: int = 6) -> None:
    """Let a partition pass, as the task does."""
    held = StoredOffset(offset, positions={"shop/slot": position})
    batch = Batch(sources=[world.part(number)], offsets={world.part(number): held}, released=[world.part(number)])
    assert world.write(store, batch) == ()


def until_released(*stores: RedisStore) -> list[list[Partition]]:
    """Advance all stores in turn until each has released something."""
    out: list[list[Partition]] = [[] for _ in stores]
    for _ in range(200):
        for number, store in enumerate(stores):
            out[number] += store.advance()
        if all(out):
            return out
    raise AssertionError(f"released so far: {out}")


def test_a14_a_truncate_waits_for_all_partitions_and_removes_the_table_s_rows_alone(world: World) -> None:
    one, other = world.store(0), world.store(1)
    filled(world, one, other)
    arrive(world, one, 0, 2)
    assert [one.advance() for _ in range(5)] == [[]] * 5
    assert len(world.rows()) == 3001
    arrive(world, other, 1, 2)
    assert until_released(one, other) == [[world.part(0)], [world.part(1)]]
    assert world.rows() == {"5:other": {"a": "not of this table"}}
    assert world.client.hgetall(f"{world.name}-else:5") == {b"a": b"not of this table"}
    passing(world, one, 0)
    passing(world, other, 1)
    assert world.client.exists(f"__cdc:truncate:{{{world.name}}}:{world.topic}") == 0
    assert world.write(one, world.batch(world.put("7", a="after"), 7)) == ()
    assert "7" in world.rows()


def test_the_partition_that_passed_writes_while_another_has_yet_to_pass(world: World) -> None:
    one, other = world.store(0), world.store(1)
    filled(world, one, other)
    arrive(world, one, 0, 2)
    arrive(world, other, 1, 2)
    until_released(one, other)
    passing(world, one, 0)
    assert world.write(one, world.batch(world.put("7", a="after"), 7)) == ()
    later = "00000001.0000000000000064.00000009.00000000"
    arrive(world, one, 0, 2, later, 7)
    assert one.advance() == []
    restarted = world.store(1)  # killed before it passed
    arrive(world, restarted, 1, 2)
    assert list(restarted.advance()) == [world.part(1)]
    passing(world, restarted, 1)
    assert "7" in world.rows()
    arrive(world, restarted, 1, 2, later, 6)
    until_released(one, restarted)
    assert "7" not in world.rows()


def test_a_task_that_takes_the_sweep_over_finishes_it(world: World) -> None:
    one, other = world.store(0), world.store(1)
    filled(world, one, other)
    arrive(world, one, 0, 2)
    arrive(world, other, 1, 2)
    one.advance()  # begins the sweep, and is killed
    heir = world.store(0)
    arrive(world, heir, 0, 2)
    until_released(heir, other)
    assert world.rows() == {"5:other": {"a": "not of this table"}}


def test_a_stalled_deleter_cannot_remove_later_rows(world: World) -> None:
    stalled, other = world.store(0), world.store(1)
    filled(world, stalled, other)
    arrive(world, stalled, 0, 2)
    arrive(world, other, 1, 2)
    stalled.advance()  # has the sweep, and stalls
    heir = world.store(0)
    arrive(world, heir, 0, 2)
    until_released(heir, other)
    passing(world, heir, 0)
    passing(world, other, 1)
    assert world.write(heir, world.batch(world.put("7", a="after"), 7)) == ()
    assert [stalled.advance() for _ in range(3)] == [[]] * 3
    assert world.rows()["7"] == {"a": "after"}


def test_a_deleter_that_stalls_in_front_of_its_exec_removes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has found its page of keys; then the sweep is taken over and finished, and the same keys are written anew."""
    stalled, other = world.store(0), world.store(1)
    filled(world, stalled, other)
    arrive(world, stalled, 0, 2)
    arrive(world, other, 1, 2)
    stalled.advance()
    exec_now = Barrier._exec
    stalls: list[str] = []

    def stall(barrier: Barrier, *commands: Sequence[Any]) -> bool:
        if commands[0][0] == "UNLINK" and not stalls:
            stalls.append("stalled")
            heir = world.store(0)
            arrive(world, heir, 0, 2)
            until_released(heir, other)
            assert set(world.rows()) == {"5:other"}
            passing(world, heir, 0)
            passing(world, other, 1)
            again = {key: op for n in range(1500) for key, op in world.put(f"0{n:04d}", a="new").items()}
            assert world.write(heir, world.batch(again, 7)) == ()
        return exec_now(barrier, *commands)

    monkeypatch.setattr(Barrier, "_exec", stall)
    stalled.advance()
    assert stalls
    assert len(world.rows()) == 1501


def test_a_partition_beyond_the_truncate_is_refused_and_nothing_is_removed(world: World) -> None:
    one, other = world.store(0), world.store(1)
    filled(world, one, other)
    beyond = StoredOffset(9, positions={"shop/slot": POSITION})
    other.write(Batch(sources=[world.part(1)], offsets={world.part(1): beyond}))
    other.settle()
    arrive(world, one, 0, 2)
    with pytest.raises(FatalError, match=r"partition 1 of the topic is beyond it already.*Remedy: delete the keys"):
        one.advance()
    assert len(world.rows()) == 3001


def test_truncates_of_different_sources_have_no_order(world: World) -> None:
    one, other = world.store(0), world.store(1)
    filled(world, one, other)
    arrive(world, one, 0, 2)
    other.arrive([Arrival(world.part(1), "else/slot", POSITION, 5)], {world.topic: 2})
    with pytest.raises(FatalError, match="different sources"):
        one.advance()


def test_a_writer_that_is_no_longer_there_cannot_arrive(world: World) -> None:
    store = world.store(0)
    world.write(store, world.batch(world.put("1", a="x"), 9))
    with pytest.raises(GuardLost):
        arrive(world, store, 0, 1)
    world.write(world.store(0), world.batch(world.put("1", a="x"), 5, previous=3))
    with pytest.raises(GuardLost):
        arrive(world, world.store(0), 0, 1)
