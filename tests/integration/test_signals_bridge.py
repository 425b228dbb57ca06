"""Signals to a running bridge through each channel of Kafka: the topic, ``cdc snapshot`` and the worker's REST API."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc import cli
from cdc.errors import CdcError
from cdc.local.kafka import Kafka
from cdc.operate import snapshot
from cdc.operate.offsets import delete_offsets
from cdc.operate.verify import wait_until_equal
from cdc.runtime.signals import signals_partition
from tests.fix_bridge import Bridge, bridged
from tests.fix_servers import fresh_database

pytestmark = pytest.mark.integration

ROWS = 20_000
PATIENCE_S = 60


@pytest.fixture(scope="module")
def bridge(request: pytest.FixtureRequest) -> Iterator[tuple[Bridge, Kafka]]:
    """One bridge for all tests here: table t has `ROWS` rows, u has 10."""
    kafka = request.getfixturevalue("apache_kafka")
    with fresh_database(request.getfixturevalue("postgres18")) as database:
        for table, rows in (("t", ROWS), ("u", 10)):
            database.execute(f"create table {table} (id int primary key, v text)")
            database.execute(f"insert into {table} select i, 'x' from generate_series(1, {rows}) i")
        size = {"    topic.prefix:": "    snapshot.fetch.size: 50\n    snapshot.max.threads: 2\n    topic.prefix:"}
        store = request.getfixturevalue("redis7")
        with bridged(database, kafka, store, "public[.][tu]", size) as running:
            yield running, kafka


def told(bridge: Bridge, kafka: Kafka, table: str) -> Counter[bytes]:
    """How often each key of a table's topic has a record of an incremental snapshot."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "told", "isolation.level": "read_committed"}
    )
    part = TopicPartition(f"{bridge.name}.public.{table}", 0, 0)
    found: Counter[bytes] = Counter()
    try:
        _, end = consumer.get_watermark_offsets(part, timeout=10)
        consumer.assign([part])
        while consumer.position([part])[0].offset < end:
            for message in consumer.consume(1000, 0.2):
                if message.error() is None and b"incremental" in (message.value() or b""):
                    found[message.key() or b""] += 1
    finally:
        consumer.close()
    return found


def http(
    bridge: Bridge, method: str, path: str, body: Any = None, content_type: str = "application/json; charset=utf-8"
) -> tuple[int, Any]:
    """Status and body of the worker's answer."""
    assert bridge.worker is not None
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(bridge.worker.url + path, data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process's work
    return found


def outcome(bridge: Bridge, identifier: str) -> Any:
    """What the worker shows of a signal that is done."""

    def found() -> Any:
        status, shown = http(bridge, "GET", f"/connectors/{bridge.name}/snapshot")
        assert status == 200
        entry = shown["signals"].get(identifier)
        return entry if entry and "RUNNING" not in str(entry) else None

    return until(found)


def test_through_rest(bridge: tuple[Bridge, Kafka]) -> None:
    running, kafka = bridge
    path = f"/connectors/{running.name}/snapshot"
    filtered = {"data-collection": "public.u", "filter": "id > 7"}
    status, sent = http(running, "POST", path, {"data-collections": ["public.u"], "additional-conditions": [filtered]})
    assert status == 202
    assert sent["topic"] == f"{running.name}-signal"
    assert outcome(running, sent["id"])["tables"] == {"public.u": {"state": "COMPLETED", "rows": 3}}
    assert sum(told(running, kafka, "u").values()) == 3
    for method, rest in (("PUT", "/pause"), ("PUT", "/resume"), ("DELETE", "")):
        status, sent = http(running, method, path + rest)
        assert status == 202
        assert outcome(running, sent["id"])["tables"] == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/connectors/nobody/snapshot", {}, 404, "Connector nobody not found"),
        ("POST", "/connectors/{}-cache/snapshot", {}, 400, "is a sink"),
        ("POST", "/connectors/{}/snapshot", b"{", 400, "the body is not JSON"),
        ("POST", "/connectors/{}/snapshot", b"[" * 100_000, 400, "the body is not JSON"),
        ("POST", "/connectors/{}/snapshot", b'{"data-collections": ["\\ud800"]}', 400, "the body is not JSON"),
        ("POST", "/connectors/{}/snapshot", [1], 400, "the body is a JSON object"),
        ("POST", "/connectors/{}/snapshot", {}, 400, "needs data-collections"),
        ("POST", "/connectors/{}/snapshot", {"data-collection": ["a.b"]}, 400, "did you mean data-collections?"),
        ("DELETE", "/connectors/{}/snapshot", {"type": "both"}, 400, "incremental or blocking"),
    ],
)
def test_rest_refuses_in_connects_words(
    bridge: tuple[Bridge, Kafka], method: str, path: str, body: Any, status: int, message: str
) -> None:
    running, _ = bridge
    code, answer = http(running, method, path.format(running.name), body)
    assert code == status
    assert answer.keys() == {"error_code", "message"}
    assert answer["error_code"] == status
    assert message in answer["message"]


def test_rest_takes_nothing_that_a_page_in_a_browser_could_send(bridge: tuple[Bridge, Kafka]) -> None:
    running, _ = bridge
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        body = {"data-collections": ["public.u"]}
        code, answer = http(running, "POST", f"/connectors/{running.name}/snapshot", body, content_type)
        assert code == 415
        assert "Content-Type: application/json" in answer["message"]


def test_through_the_topic(bridge: tuple[Bridge, Kafka]) -> None:
    """As a client of Debezium writes them: without an id, and with the key that is the topic prefix."""
    running, kafka = bridge
    before = sum(told(running, kafka, "u").values())
    places: list[str] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    order = {"type": "execute-snapshot", "data": {"data-collections": ["public.u"], "type": "INCREMENTAL"}}
    for key in ("stranger", running.name):
        producer.produce(
            f"{running.name}-signal",
            json.dumps(order),
            key,
            on_delivery=lambda _, message: places.append(
                f"{message.topic()}[{message.partition()}]@{message.offset()}/{message.timestamp()[1]}"
            ),
        )
    producer.flush(10)
    assert outcome(running, places[1])["tables"]["public.u"]["state"] == "COMPLETED"
    assert sum(told(running, kafka, "u").values()) == before + 10


def test_through_the_command_line(
    bridge: tuple[Bridge, Kafka], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running, _ = bridge

    def cdc(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cdc", "snapshot", "bridge.yaml", "--connector", running.name, *arguments])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        out, err = capsys.readouterr()
        return int(raised.value.code or 0), out, err

    monkeypatch.setattr(cli, "_load", lambda _: running.config)
    assert cdc("--table", "public.u", "--where", "id < 3", "--wait")[:2] == (0, "public.u: COMPLETED, 2 rows\n")
    code, out, _ = cdc("--table", "public.u", "--where", "nothing < 3", "--wait")
    assert code == 1
    assert "public.u: FAILED" in out
    assert "nothing" in out
    code, out, _ = cdc("--table", "public.nobody", "--wait")
    assert code == 1
    assert "refused: public.nobody matches no table" in out
    assert cdc("--stop", "--wait")[:2] == (0, "done\n")
    for wrong in ((), ("--stop", "--pause"), ("--pause", "--table", "a.b"), ("--table", "(")):
        code, _, err = cdc(*wrong)
        assert code == 2, wrong
        assert err


def test_a_signal_waits_while_the_task_is_down_and_is_not_acted_on_again(bridge: tuple[Bridge, Kafka]) -> None:
    running, kafka = bridge
    before = sum(told(running, kafka, "u").values())
    running.stop()
    sent = snapshot.send_order(running.config, running.name, snapshot.order_of(["public.u"]))
    running.start()
    assert snapshot.succeeded(snapshot.await_outcome(running.config, running.name, sent["id"]))
    running.stop()
    running.start()
    last = snapshot.send_order(running.config, running.name, snapshot.order_of([], stop=True))
    snapshot.await_outcome(running.config, running.name, last["id"])
    assert sum(told(running, kafka, "u").values()) == before + 10
    running.stop()
    delete_offsets(running.config, running.name)  # all is read anew; signals of before stay done
    running.start()
    last = snapshot.send_order(running.config, running.name, snapshot.order_of([], stop=True))
    snapshot.await_outcome(running.config, running.name, last["id"])
    assert wait_until_equal(running.config, PATIENCE_S).equal
    assert sum(told(running, kafka, "u").values()) == before + 10


def test_kill_9_in_the_middle_resumes_without_reading_again(bridge: tuple[Bridge, Kafka]) -> None:
    running, kafka = bridge

    def task() -> dict[str, Any]:
        assert running.worker is not None
        found: dict[str, Any] = running.worker.status()["connectors"][running.name]["tasks"][0]
        return found

    def progress() -> int:
        rows = 0
        for partition, offset in snapshot.show_offsets(running.config, running.name).items():
            if '"public.t"' in partition:
                rows = sum(asked["rows"] for asked in offset.get("adhoc", ()))
        return rows

    sent = snapshot.send_order(running.config, running.name, snapshot.order_of(["public.[tu]"]))
    killed = []
    for least in (1, ROWS // 2):
        until(lambda least=least: progress() >= least)
        killed.append(task()["pid"])
        os.kill(killed[-1], signal.SIGKILL)
        until(lambda: task()["pid"] not in {None, *killed} and task()["state"] == "RUNNING")
    found = snapshot.await_outcome(running.config, running.name, sent["id"])
    assert snapshot.succeeded(found), found
    assert found["tables"]["public.t"]["rows"] == ROWS
    counts = told(running, kafka, "t")
    assert len(counts) == ROWS
    assert set(counts.values()) == {1}, "rows were read again"
    assert wait_until_equal(running.config, PATIENCE_S).equal


def test_a_topic_of_signals_that_is_made_anew_is_read_from_its_beginning(bridge: tuple[Bridge, Kafka]) -> None:
    """Even if it has more records by then than the one before had read."""
    running, kafka = bridge
    topic = f"{running.name}-signal"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    first = snapshot.send_order(running.config, running.name, snapshot.order_of(["public.u"]))
    assert outcome(running, first["id"])["tables"]["public.u"]["state"] == "COMPLETED"
    # It is to be known which topic it was: a look by the running task stores that.
    until(
        lambda: (
            "id"
            in json.dumps(snapshot.show_offsets(running.config, running.name)[signals_partition(running.name, topic)])
        )
    )
    before = sum(told(running, kafka, "u").values())
    running.stop()
    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    until(lambda: topic not in admin.list_topics(timeout=10).topics)
    again = until(lambda: sent_again(running))
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for _ in range(first["offset"] + 100):
        producer.produce(topic, b"{}", b"stranger")
    assert producer.flush(PATIENCE_S) == 0
    running.start()
    assert again["offset"] == 0
    assert outcome(running, again["id"])["tables"]["public.u"]["state"] == "COMPLETED"
    assert sum(told(running, kafka, "u").values()) == before + 10
    # And while the task runs.
    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    until(lambda: topic not in admin.list_topics(timeout=10).topics)
    again = until(lambda: sent_again(running))
    assert outcome(running, again["id"])["tables"]["public.u"]["state"] == "COMPLETED"
    assert sum(told(running, kafka, "u").values()) == before + 20


def sent_again(bridge: Bridge) -> dict[str, Any] | None:
    """A signal in a topic that is made by it; none while the broker is still taking the one before away."""
    try:
        return snapshot.send_order(bridge.config, bridge.name, snapshot.order_of(["public.u"]))
    except CdcError:
        return None
