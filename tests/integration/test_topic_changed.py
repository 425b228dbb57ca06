"""A topic that is not the one it was: source and sink stop by name, and the remedy that they name mends all (H17)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from fix_bridge import Bridge, bridged
from fix_servers import Database
from sink_feed import eventually

from cdc.errors import FatalError
from cdc.kafka.topics import TopicFacts
from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Valkey
from cdc.operate.slots import reset_slot
from cdc.operate.verify import wait_until_equal
from cdc.runtime.topic_identity import TopicIdentities

pytestmark = pytest.mark.integration


@pytest.fixture
def bridge(database18: Database, apache_kafka: ApacheKafka, valkey9: Valkey) -> Iterator[Bridge]:
    database18.execute(
        "create table t (id int primary key, v text); insert into t select i from generate_series(1,50) i"
    )
    with bridged(database18, apache_kafka, valkey9, "public.t") as running:
        yield running


def error(bridge: Bridge, connector: str) -> str:
    assert bridge.worker is not None
    task: dict[str, Any] = bridge.worker.status()["connectors"][connector]["tasks"][0]
    return str(task.get("error") or "")


def test_partitions_that_are_added_stop_source_and_sink_and_the_remedy_mends_it(
    bridge: Bridge, apache_kafka: ApacheKafka
) -> None:
    topic = f"{bridge.name}.public.t"
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    # While they run: the source asks now and then, the sink when the group is told of the new partitions.
    eventually(lambda: "had 1 partitions and has 3" in error(bridge, bridge.name))
    assert "cdc slot reset" in error(bridge, bridge.name)
    bridge.stop()
    bridge.start()
    eventually(lambda: "had 1 partitions and has 3" in error(bridge, bridge.name))
    eventually(lambda: "had 1 partitions and has 3" in error(bridge, bridge.sink))

    bridge.stop()
    bridge.database.execute("delete from t where id > 40; update t set v = 'later' where id < 10")
    admin.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    reset_slot(bridge.config, bridge.name)
    bridge.redis.delete(*bridge.redis.keys(f"__cdc:offset:{{{bridge.sink}}}:{topic}:*"))
    bridge.start()
    report = wait_until_equal(bridge.config, 60)
    assert report.equal, report.as_text()
    assert report.rows == 40


def test_a_topic_made_anew_stops_the_source(bridge: Bridge, apache_kafka: ApacheKafka) -> None:
    topic = f"{bridge.name}.public.t"
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
    bridge.stop()
    admin.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    bridge.database.execute("insert into t values (100)")
    bridge.start()
    eventually(lambda: f"topic {topic} was deleted and made anew" in error(bridge, bridge.name))


def test_a_topic_deleted_under_a_source_stops_it_while_a_commit_waits_for_it(
    bridge: Bridge, apache_kafka: ApacheKafka
) -> None:
    """Kafka's client would wait for the topic for minutes, with nothing told meanwhile."""
    topic = f"{bridge.name}.public.t"
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(30)
    bridge.database.execute("insert into t values (100)")
    eventually(lambda: f"topic {topic} was deleted" in error(bridge, bridge.name))
    assert "cdc slot reset" in error(bridge, bridge.name)


def test_a_topic_that_is_gone_is_a_fault() -> None:
    with pytest.raises(FatalError, match="topic t was deleted, and with it the rows that were told before"):
        TopicIdentities("shop", {}).note("t", None)


def test_what_is_not_known_of_a_topic_is_no_change() -> None:
    topics = TopicIdentities("shop", {})
    topics.note("t", TopicFacts(3, None))
    assert topics.fresh == {'["shop",{"topic":"t"}]': {"id": None, "partitions": 3}}
    stored = dict(topics.fresh)
    TopicIdentities("shop", stored).note("t", TopicFacts(3, "an id"))
    with pytest.raises(FatalError, match="topic t had 3 partitions and has 4"):
        TopicIdentities("shop", stored).note("t", TopicFacts(4, None))
