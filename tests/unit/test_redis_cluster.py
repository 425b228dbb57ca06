"""Slots, fences, witnesses and versions of a cluster: what needs no server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from cdc.mirror.store import Partition
from cdc.redis.cluster.library import LIBRARY
from cdc.redis.cluster.slots import WITNESS_RANGES, Address, Range, Topology, place, slot_of, tag_within
from cdc.redis.cluster.sweeps import open_slots
from cdc.redis.cluster.versions import foreign_source, version

KEYS = st.lists(st.sampled_from([b"{", b"}", b"a", b"7", b":", b"\xff"]), min_size=1, max_size=12).map(b"".join)
"""No row's key is empty: templates begin with a literal."""
A, B, C = Address("a", 1), Address("b", 2), Address("c", 3)


@given(KEYS)
def test_slots_are_those_of_redis(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


@given(KEYS)
def test_a_fence_is_in_the_slot_of_its_row(row: bytes) -> None:
    assert key_slot(place(row)[1]) == key_slot(row)


@given(KEYS, KEYS)
def test_two_rows_never_share_a_fence(one: bytes, other: bytes) -> None:
    assert (place(one)[1] == place(other)[1]) == (one == other)


def test_the_witnesses_cover_all_slots() -> None:
    assert [slot for first, last in WITNESS_RANGES for slot in range(first, last + 1)] == list(range(16384))
    for bounds in WITNESS_RANGES:
        assert bounds[0] <= slot_of(b"x{%b}y" % tag_within(*bounds)) <= bounds[1]


def test_every_primary_has_a_witness_however_few_slots_it_has() -> None:
    thirds = Topology((Range(0, 5460, A), Range(5461, 10922, B), Range(10923, 16383, C)))
    assert thirds.whole
    assert len(thirds.tags) == 32
    crumbs = Topology((Range(0, 99, A), Range(100, 101, B), Range(102, 16383, C)))
    owners = {crumbs.owners[slot_of(tag)] for tag in crumbs.tags}
    assert owners == {A, B, C}
    assert set(thirds.tags) <= set(crumbs.tags)
    assert not Topology((Range(0, 16000, A),)).whole


def test_a_topology_is_read_from_what_nodes_answer() -> None:
    reply = [
        [8192, 16383, [b"", 7001, b"id", []], [b"replica", 7003, b"id"]],
        [0, 8191, [b"10.0.0.1", 7000, b"id"]],
    ]
    found = Topology.parse(reply, Address("asked", 7001))
    assert found.primaries == (Address("10.0.0.1", 7000), Address("asked", 7001))
    assert found.owners[8191] == Address("10.0.0.1", 7000)
    assert Topology.parse([[0, 16383, [None, 1, b""]]], Address("::1", 1)).primaries == (Address("::1", 1),)
    assert str(Address("::1", 1)) == "[::1]:1"


def test_slots_on_their_way_are_told_by_the_node_that_hands_them_over() -> None:
    told = (
        "aa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-99 [93->-bb] [94-<-cc]\n"
        "bb 10.0.0.2:7001@17001,name master - 0 0 2 connected 100-16383 [5->-aa]\n"
        "cc ::1:7002@17002 slave bb 0 0 2 connected\n"
    )
    assert open_slots(told) == {93: Address("10.0.0.2", 7001)}


def test_a_version_is_position_and_source_in_at_most_64_bytes() -> None:
    position = b"00000001.0000000000000064.00000007.00000000"
    assert version(b"shop/slot", position) == position + b" shop/slot"
    long = [version(b"a-connector-with-a-long-name/slot%d" % number, position) for number in (1, 2)]
    assert [len(text) for text in long] == [64, 64]
    assert long[0] != long[1]


def test_a_topic_made_anew_is_another_source() -> None:
    part = Partition("t", 0)
    assert len({foreign_source(part, topic_id) for topic_id in (None, "x", "y")}) == 3


@pytest.mark.parametrize("name", ["put", "remove", "advance"])
def test_functions_are_called_by_the_library_s_digest(name: str) -> None:
    library = LIBRARY.splitlines()[0].partition("name=")[2]
    assert f"redis.register_function('{library}_{name}', {name})" in LIBRARY
