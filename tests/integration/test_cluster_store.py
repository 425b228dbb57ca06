"""The cluster's store alone: versions of rows, fences, offsets on every node, truncates (H16, H18, H19, H22, H23)."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from cluster_world import SOURCE, ClusterWorld, position
from fix_servers import clustered

from cdc.errors import FatalError, RetriableError
from cdc.local.redis import Redis, Valkey
from cdc.local.redis_cluster import RedisCluster
from cdc.mirror.fold import DELETE, PUT, REPLACE, Op
from cdc.mirror.keys import KeyColumn
from cdc.mirror.mending import Change, Record
from cdc.mirror.store import Arrival, Batch, GuardLost, Previous, StoredOffset
from cdc.mirror.tables import TableEntry
from cdc.redis.cluster.nodes import Nodes
from cdc.redis.cluster.slots import WITNESS_RANGES, Address, place, slot_of, tag_within
from cdc.redis.cluster.store import ClusterStore
from cdc.redis.cluster.sweeps import ClusterSweep
from cdc.redis.cluster.witnesses import least, witness_key

pytestmark = pytest.mark.integration


@pytest.fixture
def world(any_cluster: RedisCluster) -> Iterator[ClusterWorld]:
    made = ClusterWorld(any_cluster)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reconfigured() -> Iterator[RedisCluster]:
    with clustered(RedisCluster(Valkey)) as cluster:
        yield cluster


@pytest.fixture
def own(reconfigured: RedisCluster) -> Iterator[ClusterWorld]:
    """A world on a cluster whose nodes the test may empty and reconfigure."""
    made = ClusterWorld(reconfigured)
    yield made
    made.close()
    for node in reconfigured.nodes:
        reconfigured.run(node, "CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
        reconfigured.run(node, "ACL", "DELUSER", "cdc")


# --- rows ------------------------------------------------------------------------------------------------


def test_a29_a_batch_over_all_nodes_and_partitions_has_no_crossslot(world: ClusterWorld) -> None:
    store = world.store(*range(12))
    for number in range(12):
        rows: dict[str, Any] = {f"{number}-{n}": (n + 1, {"a": "x", "b": "y"}) for n in range(200)}
        assert world.write(store, world.batch(rows, 200, number=number)) == ()
    store.confirm()
    assert len(world.rows()) == 2400
    assert [world.offset(number) for number in range(12)] == [StoredOffset(200)] * 12
    for node in world.cluster.nodes:
        assert "cdc_" in str(world.cluster.run(node, "FUNCTION", "LIST"))


def test_nulls_are_removed_and_other_fields_stay(world: ClusterWorld) -> None:
    """A8, H23: an update replaces the columns it knows; fields that are no columns stay."""
    store = world.store(0)
    world.put(store, "1", 1, a="old", b="old")
    world.client.hset(world.key("1"), "theirs", "z")
    world.put(store, "1", 2, a="", b=None)
    assert world.rows() == {"1": {"a": "", "theirs": "z"}}


def test_a_row_of_more_columns_than_lua_s_stack_has_room_for(world: ClusterWorld) -> None:
    store = world.store(0)
    fields: dict[str, str | None] = {f"c{n}": str(n) for n in range(5000)}
    world.put(store, "1", 1, **fields)
    assert world.rows()["1"] == fields
    world.put(store, "1", 2, **dict.fromkeys(fields) | {"c7": "x"})
    assert world.rows()["1"] == {"c7": "x"}


def test_a5_an_older_version_after_a_newer_one_changes_nothing(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 9, a="new")
    world.put(store, "1", 5, a="old", b="old")
    world.delete(store, "1", 8)
    assert world.rows() == {"1": {"a": "new"}}
    world.put(store, "1", 10, a="newer")
    assert world.rows() == {"1": {"a": "newer"}}


def test_lsns_beyond_what_a_double_holds_are_compared_digit_by_digit(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", (1 << 60) + 2, a="new")
    world.put(store, "1", (1 << 60) + 1, a="old")
    assert world.rows() == {"1": {"a": "new"}}
    world.put(store, "1", (1 << 60) + 3, a="newer")
    assert world.rows() == {"1": {"a": "newer"}}


def test_a_later_epoch_comes_after_every_lsn_of_an_earlier_one(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 1 << 50, a="before the restore")
    batch = world.batch({"1": (1, {"a": "after the restore"})})
    batch.versions = {world.key("1"): (SOURCE, position(1, epoch=2))}
    world.write(store, batch)
    assert world.rows() == {"1": {"a": "after the restore"}}


def test_a6_an_old_insert_after_a_delete_stays_away_and_a7_a_new_one_is_there_for_good(world: ClusterWorld) -> None:
    store = world.store(0)
    fence = place(world.key("1"))[1]
    world.put(store, "1", 1, a="x")
    world.delete(store, "1", 5)
    assert 604_000_000 < world.client.pttl(fence) <= 604_800_000
    world.put(store, "1", 1, a="x")
    world.put(store, "1", 4, a="y")
    assert world.rows() == {}
    world.put(store, "1", 6, a="again")
    assert world.rows() == {"1": {"a": "again"}}
    assert world.client.ttl(world.key("1")) == -1
    assert world.client.exists(fence) == 0


def test_a_delete_of_what_was_never_there_is_a_fence_too(world: ClusterWorld) -> None:
    """The insert of a row that a node lost may come back after its delete."""
    store = world.store(0, redis_cluster_tombstone_ttl_ms="5000")
    world.delete(store, "1", 5)
    assert 0 < world.client.pttl(place(world.key("1"))[1]) <= 5000
    world.put(store, "1", 4, a="x")
    assert world.rows() == {}
    world.delete(store, "1", 3)
    world.put(store, "1", 4, a="x")
    assert world.rows() == {}


@pytest.mark.parametrize("row", ["{7}", "{7}:a}b", "a}b", "a{}b}", "{a", "}{", "{}{x}", "{{x}}"])
def test_a_key_with_braces_of_its_own_shares_its_slot_with_its_fence(world: ClusterWorld, row: str) -> None:
    key = world.key(row)
    assert slot_of(key) == slot_of(place(key)[1]) == world.client.keyslot(key)
    store = world.store(0)
    world.put(store, row, 1, a="x")
    world.delete(store, row, 2)
    world.put(store, row, 1, a="x")
    assert world.rows() == {}


def test_a_replacement_begins_anew(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 1, a="old")
    world.client.hset(world.key("1"), "theirs", "z")
    world.client.expire(world.key("1"), 1000)
    assert world.write(store, world.batch({"1": (2, {"b": "new"})}, verb=REPLACE)) == ()
    assert world.rows() == {"1": {"b": "new"}}
    assert world.client.ttl(world.key("1")) == -1


def test_a_part_of_a_row_that_is_not_there_is_not_taken_for_the_row(world: ClusterWorld) -> None:
    """Else the rest of a row that a node lost would be older than the part, and never come back."""
    store = world.store(0)
    world.patch(store, "1", 9, b="new")
    assert world.rows() == {}
    assert store.in_part == 1
    world.put(store, "1", 1, a="x", b="old")
    world.patch(store, "1", 9, b="new")
    world.patch(store, "1", 5, b="older")
    assert world.rows() == {"1": {"a": "x", "b": "new"}}
    world.client.hset(world.key("2"), "a", "without version")
    world.patch(store, "2", 1, b="x")
    assert world.rows()["2"] == {"a": "without version", "b": "x"}


def test_sources_have_no_order_between_them(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 9, a="ours")
    assert world.write(store, world.batch({"1": (1, {"a": "theirs"})}, source=b"other/slot")) == ()
    assert world.rows() == {"1": {"a": "theirs"}}
    long = b"a source whose name is longer than a version has room for "
    for lsn, last in ((2, b"1"), (1, b"2"), (1, b"1")):
        assert world.write(store, world.batch({"1": (lsn, {"a": last.decode()})}, source=long + last)) == ()
    assert world.client.hstrlen(world.key("1"), "__cdc:version") == 64
    assert world.rows() == {"1": {"a": "1"}}  # the third is of another source than the second


def test_records_without_position_have_that_of_their_offset(world: ClusterWorld) -> None:
    store = world.store(0, 1)
    for offset in (10, 6, 8):
        assert world.write(store, world.batch({"1": (0, {"a": str(offset)})}, offset, source=b"")) == ()
    assert world.rows() == {"1": {"a": "10"}}
    anew = world.batch({"1": (0, {"a": "of the topic made anew"})}, 1, source=b"")
    anew.offsets = {world.part(0): StoredOffset(1, topic_id="another")}
    world.write(store, anew)
    assert world.rows() == {"1": {"a": "of the topic made anew"}}


def test_a4_any_interleaving_that_keeps_the_order_of_each_replay_ends_the_same(world: ClusterWorld) -> None:
    """Several writers replay one history, each from where it likes and how often it likes, in batches of any size."""
    seed = uuid.uuid4().int & 0xFFFFFFFF
    chance = random.Random(seed)
    verbs: list[tuple[str, int, dict[str, str | None] | None]] = []
    final: dict[str, dict[str, str]] = {}
    for lsn in range(1, 121):
        row = str(chance.randrange(8))
        if chance.random() < 0.3:
            verbs.append((row, lsn, None))
            final.pop(row, None)
        else:
            fields = {"a": str(lsn), "b": None if chance.random() < 0.5 else str(lsn)}
            verbs.append((row, lsn, fields))
            final[row] = {name: value for name, value in fields.items() if value is not None}
    stores = [world.store(0) for _ in range(3)]
    heads = [0, 0, 0]
    seen: dict[str, int] = {}
    while min(heads) < len(verbs):
        number = chance.randrange(3)
        if chance.random() < 0.1:
            heads[number] = chance.randrange(heads[number] + 1)
        size = chance.randrange(1, 12)
        part = verbs[heads[number] : heads[number] + size]
        batch: dict[str, Any] = {row: (lsn, fields) for row, lsn, fields in part}  # the last one of each row
        write = world.batch(batch)
        write.offsets = {}
        world.write(stores[number], write)
        heads[number] += len(part)
        rows = world.rows()
        for row, fields in rows.items():
            assert int(fields["a"]) >= seen.get(row, 0), f"seed {seed}: row {row} shows an older value"
            seen[row] = int(fields["a"])
    assert world.rows() == final, f"seed {seed}"


# --- offsets ---------------------------------------------------------------------------------------------


def test_offsets_are_on_every_node_once_their_rows_are(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 1, 5, a="x")
    store.confirm()
    assert world.witnesses() == [StoredOffset(5).encode()] * 32
    owners = {world.cluster.owner(slot_of(tag_within(*bounds))).port for bounds in WITNESS_RANGES}
    assert owners == {node.port for node in world.cluster.nodes}
    assert world.store().take([world.part(0)]) == {world.part(0): StoredOffset(5)}


def test_a_node_that_is_behind_or_has_nothing_says_where_to_go_on(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 1, 5, a="x")
    store.confirm()
    [tag] = [tag_within(*WITNESS_RANGES[3])]
    key = witness_key(tag, world.name)
    world.client.hset(key, f"{world.topic}:0", StoredOffset(2).encode())
    assert store.take([world.part(0)]) == {world.part(0): StoredOffset(2)}
    world.put(store, "2", 2, 6, a="y")
    store.confirm()
    assert world.offset() == StoredOffset(6)
    world.client.delete(key)
    assert store.take([world.part(0)]) == {}
    world.put(store, "3", 3, 7, a="z")
    store.confirm()
    assert world.offset() == StoredOffset(7)


def test_what_a_node_loses_while_idle_or_between_batches_is_noticed(own: ClusterWorld) -> None:
    store = own.store(0)
    for n in range(50):
        own.put(store, str(n), n + 1, n + 1, a="x")
    store.verify()
    own.cluster.run(own.cluster.nodes[1], "FLUSHALL")
    assert 0 < len(own.rows()) < 50
    with pytest.raises(GuardLost, match="changed"):
        store.verify()
    assert store.take([own.part(0)]) == {}
    own.write(store, own.batch({str(n): (n + 1, {"a": "x"}) for n in range(50)}, 50))
    store.confirm()
    assert len(own.rows()) == 50
    own.cluster.run(own.cluster.nodes[2], "FLUSHALL")
    own.put(store, "50", 51, 51, a="x")
    with pytest.raises(GuardLost, match="does not hold"):
        store.confirm()
    assert store.take([own.part(0)]) == {}


def test_a23_a_writer_that_was_replaced_neither_sets_rows_nor_offsets_back(world: ClusterWorld) -> None:
    zombie, owner = world.store(0), world.store(0)
    world.put(owner, "1", 9, 9, a="new")
    owner.confirm()
    world.put(zombie, "1", 5, 5, a="old")
    with pytest.raises(GuardLost):
        zombie.confirm()
    assert world.rows() == {"1": {"a": "new"}}
    assert world.offset() == StoredOffset(9)
    with pytest.raises(GuardLost, match="no guard"):
        zombie.write(world.batch({"1": (6, {"a": "old"})}))


def test_another_partition_s_owner_does_not_disturb(world: ClusterWorld) -> None:
    one, other = world.store(0), world.store(1)
    for n in range(3):
        world.put(one, f"a{n}", n + 1, n + 1, a="x")
        assert world.write(other, world.batch({f"b{n}": (n + 1, {"a": "y"})}, n + 1, number=1)) == ()
        one.confirm()
        other.confirm()
    assert (world.offset(0), world.offset(1)) == (StoredOffset(3), StoredOffset(3))


def test_h19_a_connection_that_was_killed_ends_the_guard(world: ClusterWorld) -> None:
    """What a node acknowledged before may be lost; only what its witnesses say counts."""
    store = world.store(0)
    world.put(store, "1", 1, 5, a="x")
    store.confirm()
    node = world.cluster.nodes[0]
    with node.client() as client:
        [mine] = [c for c in client.client_list() if c["name"] == f"cdc/{world.name}-0"]
        client.client_kill_filter(_id=mine["id"])
    with pytest.raises(RetriableError, match="lost the connection"):
        world.write(store, world.batch({str(n): (2, {"a": "y"}) for n in range(50)}, 6))
    with pytest.raises(GuardLost):
        store.write(world.batch({"1": (3, {"a": "z"})}, 7))
    assert store.take([world.part(0)]) == {world.part(0): StoredOffset(5)}


def test_seen_outcomes_need_no_confirmation_and_refused_ones_do(world: ClusterWorld) -> None:
    """A16, H21: the coordinates of what was refused, its neighbours applied, and told again after a restart."""
    store = world.store(0)
    world.client.set(world.key("2"), "not ours")
    rows: dict[str, Any] = {row: (1, {"a": "x"}) for row in "123"}
    [refusal] = world.write(store, world.batch(rows, 50, previous=40))
    assert (refusal.key, refusal.partition, refusal.offset) == (world.key("2"), world.part(0), 49)
    assert refusal.reason.startswith("WRONGTYPE")
    assert world.client.get(world.key("2")) == b"not ours"
    assert world.client.hget(world.key("3"), "a") == b"x"
    assert world.offset() == StoredOffset(50, previous=Previous(40, {}))
    store = world.store(0)
    assert len(world.write(store, world.batch(rows, 50, previous=40))) == 1
    store.confirm()
    assert world.offset() == StoredOffset(50)
    world.client.delete(world.key("2"))
    assert world.write(store, world.batch(rows, 60, previous=50)) == ()
    store.confirm()
    assert world.offset() == StoredOffset(60)
    assert sorted(world.rows()) == ["1", "2", "3"]


def test_refusals_of_a_batch_are_seen_once_the_next_one_is_written_whatever_its_partitions(world: ClusterWorld) -> None:
    store = world.store(0, 1)
    world.client.set(world.key("2"), "not ours")
    assert len(world.write(store, world.batch({"2": (1, {"a": "x"})}, 5, previous=4))) == 1
    assert world.write(store, world.batch({"3": (1, {"a": "x"})}, 9, number=1, previous=8)) == ()
    store.confirm()
    assert (world.offset(0), world.offset(1)) == (StoredOffset(5), StoredOffset(9))


def test_of_witnesses_that_differ_in_what_was_seen_the_one_that_saw_less_counts(world: ClusterWorld) -> None:
    unseen = StoredOffset(5, previous=Previous(3, {}))
    assert least([StoredOffset(5).encode(), unseen.encode(), StoredOffset(6).encode()]) == unseen


# --- tables ----------------------------------------------------------------------------------------------


def entry(world: ClusterWorld, ttl: int | None = None) -> TableEntry:
    shapes = ((KeyColumn("id"),),)
    return TableEntry(world.name, world.topic, world.name + ":{pk}", shapes, ("a",), ttl=ttl)


def test_what_is_new_of_a_table_is_there_before_its_first_row(world: ClusterWorld) -> None:
    store = world.store(0)
    batch = world.batch({"1": (1, {"a": "x"})})
    batch.entries[world.topic] = entry(world)
    store.write(batch)
    other = world.store(1)
    assert other.tables().get(world.name, world.topic) == entry(world)
    store.settle()


def test_h22_two_tasks_cannot_both_tell_of_tables_they_did_not_read(world: ClusterWorld) -> None:
    one, other = world.store(0), world.store(1)
    batch = world.batch({"1": (1, {"a": "x"})})
    batch.entries[world.topic] = entry(world)
    world.write(one, batch)
    late = world.batch({"2": (1, {"a": "x"})}, number=1)
    late.entries["another"] = entry(world)
    with pytest.raises(GuardLost, match="tables"):
        world.write(other, late)
    assert list(world.rows()) == ["1"]


def test_what_a_node_forgot_of_our_tables_is_stored_again(own: ClusterWorld) -> None:
    store = own.store(0)
    batch = own.batch({"1": (1, {"a": "x"})})
    batch.entries[own.topic] = entry(own)
    own.write(store, batch)
    own.client.delete("__cdc:tables")
    store.take([own.part(0)])
    assert own.store(0).tables().get(own.name, own.topic) == entry(own)


# --- outages ---------------------------------------------------------------------------------------------


def test_a17_without_memory_rows_wait(own: ClusterWorld) -> None:
    store = own.store(0)
    for node in own.cluster.nodes:
        own.cluster.run(node, "CONFIG", "SET", "maxmemory", "1mb")
    rows: dict[str, Any] = {str(n): (1, {"a": "x" * 100}) for n in range(100)}
    with pytest.raises(RetriableError, match="OOM"):
        own.write(store, own.batch(rows, 2))
    for node in own.cluster.nodes:
        own.cluster.run(node, "CONFIG", "SET", "maxmemory", "0")
    assert store.take([own.part(0)]) == {}
    assert own.write(store, own.batch(rows, 2)) == ()
    assert len(own.rows()) == 100


def test_functions_that_are_gone_are_loaded_again(own: ClusterWorld) -> None:
    store = own.store(0)
    for node in own.cluster.nodes:
        own.cluster.run(node, "FUNCTION", "FLUSH")
    with pytest.raises(RetriableError, match="functions"):
        own.write(store, own.batch({"1": (1, {"a": "x"})}))
    store.take([own.part(0)])
    own.put(store, "1", 1, a="x")
    assert own.rows() == {"1": {"a": "x"}}


def test_a30_what_a_user_lacks_is_told_with_what_grants_it(own: ClusterWorld) -> None:
    for node in own.cluster.nodes:
        own.cluster.run(node, "ACL", "SETUSER", "cdc", "on", ">pw", "~*", "+@all", "-hset", "-fcall", "-cluster|slots")
    settings = {"redis_username": "cdc", "redis_password": "pw"}
    [finding] = own.connector(**settings).check()
    assert "CLUSTER|SLOTS" in finding.message.upper() or "NOPERM" in finding.message
    for node in own.cluster.nodes:
        own.cluster.run(node, "ACL", "SETUSER", "cdc", "+cluster|slots")
    [finding] = own.connector(**settings).check()
    assert finding.remedy == "ACL SETUSER cdc +hset +fcall"
    with pytest.raises(FatalError, match=r"NOPERM.*Remedy: grant"):
        own.write(own.store(0, **settings), own.batch({"1": (1, {"a": "x"})}))


def test_the_permissions_that_the_page_lists_are_enough(own: ClusterWorld) -> None:
    rules = (
        "+client|setname +info +scan +asking +cluster|slots +cluster|info +cluster|nodes "
        "+cluster|getkeysinslot +function|load +fcall "
        "+hget +hmget +hgetall +hset +hdel +get +set +exists +del +unlink +expire +persist"
    )
    for node in own.cluster.nodes:
        own.cluster.run(
            node, "ACL", "SETUSER", "cdc", "reset", "on", ">pw", f"~{own.name}:*", "~__cdc:*", *rules.split()
        )
    settings = {"redis_username": "cdc", "redis_password": "pw"}
    assert own.connector(**settings).check() == []
    for node in own.cluster.nodes:  # with these, the check can ask for each of the others
        own.cluster.run(node, "ACL", "SETUSER", "cdc", "+multi", "+exec")
    assert own.connector(**settings).check() == []
    store = own.store(0, **settings)
    batch = own.batch({"1": (1, {"a": "x"}), "2": (1, {"a": "x"})})
    batch.entries[own.topic] = entry(own)
    own.write(store, batch)
    own.delete(store, "1", 2)
    store.confirm()
    store.verify()
    store.arrive([Arrival(own.part(0), SOURCE.decode(), position(9).decode(), 3)], {own.topic: 1})
    until_released(store)
    assert own.rows() == {}
    own.write(store, own.batch({"3": (10, {"a": "x"})}, 4))
    store.confirm()
    with closing(own.connector(**settings).mender(own.topic, 1, "rebuild")) as mender:
        mender.save({b"run": b"1"})
        assert mender.state() == {b"run": b"1"}
        assert mender.size() >= 1
        assert [key for page in mender.scan(mender.tables()) for key in page] == [own.key("3")]
        assert mender.hold([own.key("3")]).next == {0: 4}
        assert mender.apply([Change(own.key("3"), delete=True)], None) == {own.key("3")}
        mender.forget()
    assert own.rows() == {}


# --- rows put right --------------------------------------------------------------------------------------


def test_a_row_is_put_right_only_if_nobody_wrote_it_since_it_was_seen(world: ClusterWorld) -> None:
    """Written, deleted, deleted and made again, made where none was: each leaves another version or fence."""
    store = world.store(0)
    rows = ("same", "written", "deleted", "again", "new")
    for row in rows[:-1]:
        world.put(store, row, 5, a="x")
    keys = [world.key(row) for row in (*rows, "absent", "gone")]
    world.put(store, "gone", 5, a="x")
    world.delete(store, "gone", 6)
    store.confirm()
    with closing(world.connector().mender(world.topic, 1, "rebuild")) as mender:
        held = mender.hold(keys)
        assert held.rows[world.key("same")] == {b"a": b"x"}
        assert held.rows[world.key("gone")] is None
        assert mender.shows(world.key("same"), record(5))
        assert not mender.shows(world.key("same"), record(4))
        world.put(store, "written", 7, a="later")
        world.delete(store, "deleted", 7)
        world.delete(store, "again", 7)
        world.put(store, "again", 8, a="later")
        world.put(store, "new", 7, a="later")
        made = mender.apply([Change(key, [b"a", b"y"], record=record(5)) for key in keys], None)
        assert made == {world.key("same"), world.key("absent"), world.key("gone")}
    later = {row: {"a": "later"} for row in ("written", "again", "new")}
    assert world.rows() == {**later, **{row: {"a": "y"} for row in ("same", "absent", "gone")}}
    # What was put right has its record's version: an older change, and the same one, come too late.
    for row in ("same", "absent", "gone"):
        world.put(store, row, 4, a="older")
        world.put(store, row, 5, a="again")
    assert {row: fields["a"] for row, fields in world.rows().items() if fields["a"] != "later"} == {
        "same": "y",
        "absent": "y",
        "gone": "y",
    }


def test_a_key_that_is_removed_leaves_its_version_as_the_fence(world: ClusterWorld) -> None:
    store = world.store(0)
    world.put(store, "1", 5, a="x")
    world.client.hset(world.key("by hand"), "a", "x")
    with closing(world.connector().mender(world.topic, 1, "rebuild")) as mender:
        mender.hold([world.key("1"), world.key("by hand")])
        gone = [Change(world.key(row), delete=True) for row in ("1", "by hand")]
        assert mender.apply(gone, None) == {change.key for change in gone}
    assert world.rows() == {}
    world.put(store, "1", 5, a="again")
    assert world.rows() == {}
    world.put(store, "1", 6, a="new")
    world.put(store, "by hand", 1, a="new")
    assert world.rows() == {"1": {"a": "new"}, "by hand": {"a": "new"}}


def record(lsn: int) -> Record:
    return Record(SOURCE, position(lsn), 0, lsn)


# --- servers that are not fit ----------------------------------------------------------------------------


def test_a31_an_eviction_policy_of_any_node_is_refused(own: ClusterWorld) -> None:
    own.cluster.run(own.cluster.nodes[2], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    [finding] = own.connector().check()
    assert finding.remedy == "CONFIG SET maxmemory-policy noeviction"
    assert f":{own.cluster.nodes[2].port}" in finding.message
    with pytest.raises(FatalError, match="eviction policy is allkeys-lru"):
        own.store(0)


def test_a_standalone_server_is_no_cluster_and_says_so(redis7: Redis, world: ClusterWorld) -> None:
    connector = world.connector(redis_uri=redis7.url)
    [finding] = connector.check()
    assert "no node of a cluster" in finding.message
    with pytest.raises(FatalError, match=r"no node of a cluster.*Remedy: set redis\.cluster\.enabled=false"):
        world.store(0, redis_uri=redis7.url)


def test_a_ready_cluster_has_no_findings_and_one_seed_is_enough(world: ClusterWorld) -> None:
    assert world.connector().check() == []
    node = world.cluster.nodes[1]
    connector = world.connector(redis_uri=f"redis://{node.host}:{node.port}")
    assert connector.check() == []
    store = world.store(0, redis_uri=f"redis://{node.host}:{node.port}")
    world.write(store, world.batch({str(n): (1, {"a": "x"}) for n in range(30)}))
    assert len(world.rows()) == 30


# --- expiry ----------------------------------------------------------------------------------------------


def test_a15_expiry_is_set_with_every_write_in_its_step(world: ClusterWorld) -> None:
    store = world.store(0, redis_ttl="1000")
    world.put(store, "1", 1, a="x")
    assert 990 < world.client.ttl(world.key("1")) <= 1000
    world.client.expire(world.key("1"), 5)
    world.put(store, "1", 2, a="y")
    assert 990 < world.client.ttl(world.key("1")) <= 1000
    world.client.expire(world.key("1"), 5)
    world.put(store, "1", 1, a="older")
    assert world.client.ttl(world.key("1")) <= 5


def test_expiry_that_is_no_longer_configured_is_taken_from_the_rows_there_are(world: ClusterWorld) -> None:
    store = world.store(0, redis_ttl="1000")
    batch = world.batch({str(n): (1, {"a": "x"}) for n in range(20)})
    batch.entries[world.topic] = entry(world, ttl=1000)
    world.write(store, batch)
    store = world.store(0)
    for _ in range(1000):
        store.advance()
        found = store.tables().get(world.name, world.topic)
        assert found is not None
        if found.ttl is None:
            break
    assert [world.client.ttl(world.key(str(n))) for n in range(20)] == [-1] * 20


# --- truncates -------------------------------------------------------------------------------------------


def until_released(*stores: ClusterStore) -> list[list[Any]]:
    """Advance all stores in turn until each has released something."""
    out: list[list[Any]] = [[] for _ in stores]
    for _ in range(500):
        for number, store in enumerate(stores):
            if not out[number]:
                out[number] += store.advance()
        if all(out):
            return out
    raise AssertionError(f"released so far: {out}")


def arrive(world: ClusterWorld, store: ClusterStore, number: int, lsn: int) -> None:
    store.arrive([Arrival(world.part(number), SOURCE.decode(), position(lsn).decode(), 5)], {world.topic: 2})


def filled(world: ClusterWorld, store: ClusterStore, rows: int = 500) -> None:
    batch = world.batch({str(n): (n + 1, {"a": "x"}) for n in range(rows)}, 5)
    batch.entries[world.topic] = entry(world)
    assert world.write(store, batch) == ()
    world.client.hset(f"{world.name}-else:5", "a", "not of this table")


def test_a14_a_truncate_removes_older_rows_alone_and_no_partition_waits(world: ClusterWorld) -> None:
    one, other = world.store(0), world.store(1)
    filled(world, one)
    world.put(one, "later", 2000, a="stays")
    other.take([world.part(1)])
    arrive(world, one, 0, 1000)
    assert until_released(one) == [[world.part(0)]]
    assert world.rows() == {"later": {"a": "stays"}}
    assert world.client.hgetall(f"{world.name}-else:5") == {b"a": b"not of this table"}
    # a partition that has yet to come to the truncate
    assert world.write(other, world.batch({"late": (900, {"a": "x"})}, number=1)) == ()
    assert set(world.rows()) == {"later", "late"}
    arrive(world, other, 1, 1000)
    until_released(other)
    assert set(world.rows()) == {"later"}
    # whoever is late cannot bring a row back
    world.put(one, "7", 8, a="old")
    assert set(world.rows()) == {"later"}
    world.put(one, "7", 1001, a="after")
    assert set(world.rows()) == {"later", "7"}


def test_a_truncate_that_a_kill_cut_short_is_done_again(world: ClusterWorld) -> None:
    store = world.store(0)
    filled(world, store, 9000)
    arrive(world, store, 0, 10_000)
    store.advance()
    heir = world.store(0)
    arrive(world, heir, 0, 10_000)
    until_released(heir)
    assert world.rows() == {}


def test_a_truncate_leaves_a_key_of_another_type_alone(world: ClusterWorld) -> None:
    store = world.store(0)
    filled(world, store)
    world.client.set(world.key("theirs"), "x")
    arrive(world, store, 0, 1000)
    until_released(store)
    assert world.client.get(world.key("theirs")) == b"x"


def test_partitions_of_a_task_that_wait_at_one_truncate_share_its_scan(world: ClusterWorld) -> None:
    store = world.store(0, 1)
    filled(world, store)
    arrive(world, store, 0, 1000)
    arrive(world, store, 1, 1000)
    assert until_released(store) == [[world.part(0), world.part(1)]]


def test_a_batch_may_be_under_way_while_rows_are_removed(world: ClusterWorld) -> None:
    store = world.store(0)
    filled(world, store)
    arrive(world, store, 0, 1000)
    released: list[Any] = []
    for n in range(500):
        store.write(world.batch({f"new{n}": (2000 + n, {"a": "x"})}, 6 + n))
        released += store.advance()
        assert store.settle() == ()
        if released:
            break
    assert released == [world.part(0)]
    assert set(world.rows()) == {f"new{number}" for number in range(n + 1)}


def test_a_key_that_moves_to_a_node_that_was_scanned_already_is_found(own: ClusterWorld) -> None:
    store = own.store(0)
    filled(own, store, 300)
    target, source = own.cluster.nodes[0], own.cluster.nodes[1]
    with own.cluster.nodes[1].client() as client:
        here = sorted(client.scan_iter(match=f"{own.name}:*", count=100_000))
    nodes = Nodes.reach(own.connector().access, "test", 5)
    nodes.open()
    sweep = ClusterSweep(nodes, entry(own).spaces())
    late = Address(source.host, source.port)
    scan = sweep._scans.pop(late)
    seen: set[bytes] = set()
    while any(not other.done for other in sweep._scans.values()):
        seen |= set(sweep.page())
    assert not seen & set(here)
    for key in here[:5]:
        own.cluster.move_slot(slot_of(key), target)
    own.cluster.run(target, "CLUSTER", "SETSLOT", slot_of(here[5]), "IMPORTING", own.cluster.id_of(source))
    own.cluster.run(source, "CLUSTER", "SETSLOT", slot_of(here[5]), "MIGRATING", own.cluster.id_of(target))
    own.cluster.run(source, "MIGRATE", target.host, target.port, here[5], 0, 10_000)
    sweep._scans[late] = scan
    while not sweep.done:
        seen |= set(sweep.page())
    own.cluster.move_slot(slot_of(here[5]), target)
    nodes.close()
    assert seen == {own.key(str(n)) for n in range(300)}


def test_an_op_of_every_verb_in_one_batch(world: ClusterWorld) -> None:
    store = world.store(0)
    filled(world, store, 3)
    ops: dict[bytes, Op] = {
        world.key("0"): (DELETE, [], (), 0, 6),
        world.key("1"): (REPLACE, [b"b", b"y"], (), 0, 7),
        world.key("3"): (PUT, [b"a", b"z"], (b"b",), 0, 8),
    }
    versions = {key: (SOURCE, position(100)) for key in ops}
    world.write(store, Batch(ops, [world.part(0)], {world.part(0): StoredOffset(9)}, versions=versions))
    assert world.rows() == {"1": {"b": "y"}, "2": {"a": "x"}, "3": {"a": "z"}}
