"""What stores keep about partitions and tables reads back, and is refused when it is not ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import FatalError
from cdc.mirror.keys import KeyColumn, Template
from cdc.mirror.store import Partition, Previous, StoredOffset
from cdc.mirror.tables import TableEntry, Tables

POSITIONS = st.dictionaries(st.text(max_size=8), st.text("0123456789abcdef.", max_size=43), max_size=3)


@given(
    st.builds(
        StoredOffset,
        st.integers(0, 2**63),
        st.integers(-1, 2**50),
        POSITIONS,
        st.none() | st.builds(Previous, st.integers(0, 2**63), POSITIONS),
        st.none() | st.text(max_size=30),
        st.none() | st.integers(1, 1000),
    )
)
def test_an_offset_reads_back(offset: StoredOffset) -> None:
    assert StoredOffset.decode(offset.encode()) == offset


def test_an_offset_is_compact_json_with_a_version() -> None:
    text = StoredOffset(7, 5, {"shop/slot": "01"}, Previous(3, {})).encode()
    assert text == b'{"v":1,"next":7,"ts":5,"pos":{"shop/slot":"01"},"prev":{"next":3,"pos":{}}}'


@pytest.mark.parametrize("text", [b"", b"7", b"{}", b'{"v":1}', b'{"v":1,"next":"x","ts":0}', b"[]"])
def test_what_is_no_offset_is_refused_with_the_remedy(text: bytes) -> None:
    with pytest.raises(FatalError, match=r"Remedy: delete the key"):
        StoredOffset.decode(text)


def test_an_offset_of_a_newer_version_is_refused() -> None:
    with pytest.raises(FatalError, match="newer version"):
        StoredOffset.decode(b'{"v":2,"next":1,"ts":0}')


def test_a_partition_is_named_as_kafka_s_tools_name_it() -> None:
    assert str(Partition("a.b", 3)) == "a.b[3]"


ENTRY = TableEntry("sink", "p.s.users", "{table}:{pk}", ((KeyColumn("id", "int8"),),), ("id", "näme"), 60)


def test_an_entry_reads_back() -> None:
    assert TableEntry.decode(ENTRY.encode()) == ENTRY
    assert json.loads(ENTRY.encode())["v"] == 1


@pytest.mark.parametrize("text", [b"", b"{}", b'{"v":1}', b'{"v":3}'])
def test_what_is_no_entry_is_refused(text: bytes) -> None:
    with pytest.raises(FatalError):
        TableEntry.decode(text)


def test_a_table_is_admitted_once_for_each_shape_of_its_key() -> None:
    template = Template("{table}:{pk}")
    tables = Tables([ENTRY])
    same = template.bind("p.s.users", [KeyColumn("id", "int4")])
    assert tables.admit(TableEntry("sink", "p.s.users", "{table}:{pk}"), same) == ENTRY
    other = template.bind("p.s.users", [KeyColumn("id", "int8"), KeyColumn("region")])
    assert tables.admit(TableEntry("sink", "p.s.users", "{table}:{pk}"), other).shapes == (
        (KeyColumn("id", "int8"),),
        (KeyColumn("id", "int8"), KeyColumn("region")),
    )


def test_h22_tables_that_share_keys_are_refused_with_the_statement_that_forgets_one() -> None:
    tables = Tables([ENTRY], lambda entry: f"HDEL x '{entry.topic}'")
    space = Template("users:{pk}").bind("p.s.accounts", [KeyColumn("id", "int4")])
    with pytest.raises(FatalError, match=r"share keys such as b'users:0'.*HDEL x 'p\.s\.users'"):
        tables.admit(TableEntry("sink", "p.s.accounts", "users:{pk}"), space)


def test_our_own_keys_are_not_for_rows() -> None:
    space = Template("_{pk}").bind("p.s.accounts", [KeyColumn("name")])
    with pytest.raises(FatalError, match="kept for offsets"):
        Tables().admit(TableEntry("sink", "p.s.accounts", "_{pk}"), space)
