"""Signals in Debezium's words: what is taken, and what is refused by name; other names of snapshot modes."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from structlog.testing import capture_logs

from cdc.errors import DataError, FatalError
from cdc.kafka.topics import Topics
from cdc.operate.snapshot import order_of
from cdc.plugin import SignalTopic, SourceTask
from cdc.postgres.config import PostgresConfig
from cdc.postgres.signals import Execute, Log, Pause, Resume, Stop, read, read_message
from cdc.runtime.signals import Signals

BASED = "snapshot.mode.configuration.based."


def config(**properties: str) -> PostgresConfig:
    needed = {
        "name": "shop",
        "connector.class": "postgres",
        "database.user": "u",
        "database.dbname": "d",
        "topic.prefix": "shop",
    }
    return PostgresConfig.model_validate(
        needed | {name.replace("__", "."): value for name, value in properties.items()}
    )


def test_an_execute_signal_as_debezium_documents_it() -> None:
    data = {
        "data-collections": ["schema1.table1", r"schema2\..*"],
        "type": "INCREMENTAL",
        "additional-conditions": [
            {"data-collection": "schema1.table1", "filter": "color='blue'"},
            {"data-collection": r"schema1\..*", "filter": "size > 1 or size < 0"},
        ],
    }
    for form in (data, json.dumps(data)):
        order = read("execute-snapshot", form)
        assert isinstance(order, Execute)
        assert order.tables.match("SCHEMA1.table1")
        assert order.tables.match("schema2.anything")
        assert not order.tables.match("schema1.table10")
        assert not order.tables.match("other.schema1.table1")
        assert order.condition("schema1.other") == "size > 1 or size < 0"
        assert order.condition("schema1.table1") == "(color='blue'\n) and (size > 1 or size < 0\n)"
        assert order.condition("schema2.x") == ""
        assert (order.blocking, order.sweep) == (False, False)


def test_the_other_signals() -> None:
    assert read("log", '{"message": "at {}"}') == Log("at {}")
    for nothing in (None, "", "{}", {}):
        assert read("pause-snapshot", nothing) == Pause()
        assert read("resume-snapshot", nothing) == Resume()
        assert read("stop-snapshot", nothing) == Stop(None)
    stop = read("stop-snapshot", {"data-collections": ["public.a"], "type": "incremental"})
    assert isinstance(stop, Stop)
    assert stop.tables is not None
    assert stop.tables.match("public.a")
    assert not stop.tables.match("public.ab")


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("", None, "known are execute-snapshot"),
        ("execute-snapshot", "{", "not JSON"),
        ("execute-snapshot", "[]", "a JSON object"),
        ("execute-snapshot", {}, "needs data-collections"),
        ("execute-snapshot", {"data-collections": "public.a"}, "a list of texts"),
        ("execute-snapshot", {"data-collections": [1]}, "a list of texts"),
        ("execute-snapshot", {"data-collections": ["a"], "type": "full"}, "incremental or blocking"),
        ("execute-snapshot", {"data-collections": ["a"], "sweep": "yes"}, "true or false"),
        ("execute-snapshot", {"data-collections": ["a"], "surrogate-key": "x"}, "surrogate-key is not supported"),
        ("execute-snapshot", {"data-collections": ["a"], "additional-condition": "x"}, "additional-conditions"),
        ("execute-snapshot", {"data-collections": ["a"], "additional-conditions": ["x"]}, "data-collection, filter"),
        (
            "execute-snapshot",
            {"data-collections": ["a"], "additional-conditions": [{"data-collection": "a", "filter": ""}]},
            "needs a data-collection and a filter",
        ),
        (
            "execute-snapshot",
            {"data-collections": ["a"], "additional-conditions": [{"data-collection": "a", "filter": "SELECT 1"}]},
            "the condition alone",
        ),
        ("pause-snapshot", {"when": "now"}, "no 'when'"),
        ("log", None, "message"),
    ],
)
def test_what_is_refused_says_why(kind: str, data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read(kind, data)


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"type": "log", "data": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"type": "log", "data": {"message": "\\ud800"}}', "surrogates not allowed"),
        (b'{"type": "log", "data": "{\\"message\\": \\"\\\\ud800\\"}"}', "surrogates not allowed"),
        (b'{"type": "log", "id": ' + b"9" * 5000 + b"}", "limit"),
        (
            b'{"type": "execute-snapshot", "data": {"data-collections": ["a{99999999999}"]}}',
            "not a regular expression",
        ),
        (
            b'{"type": "execute-snapshot", "data": {"data-collections": ["' + b"(" * 5000 + b'"]}}',
            "not a regular expression",
        ),
    ],
)
def test_poison_is_refused(payload: bytes, told: str) -> None:
    def act() -> None:
        _, kind, data = read_message(payload)
        read(kind, data)

    with pytest.raises(DataError, match=told):
        act()


@given(st.binary())
def test_no_message_is_more_than_refused(payload: bytes) -> None:
    try:
        _, kind, data = read_message(payload)
        read(kind, data)
    except DataError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_data_are_more_than_refused(data: Any) -> None:
    for kind in ("execute-snapshot", "stop-snapshot", "log", "pause-snapshot"):
        try:
            read(kind, data)
            read(kind, {"data-collections": data, "additional-conditions": data, "message": data, "type": data})
        except DataError:
            pass


def test_what_the_command_line_means_is_what_the_source_reads() -> None:
    kind, data = order_of(["public.a", "public.b"], "x > 1", blocking=True)
    order = read(kind, dict(data))
    assert isinstance(order, Execute)
    assert order.blocking
    assert order.condition("public.b") == "x > 1"
    assert isinstance(read(*order_of([], stop=True)), Stop)
    assert isinstance(read(*order_of([], pause=True)), Pause)
    assert isinstance(read(*order_of([], resume=True)), Resume)


@pytest.mark.parametrize(
    ("given_mode", "mode"),
    [("schema_only", "no_data"), ("never", "no_data"), ("exported", "initial"), ("always", "always")],
)
def test_earlier_names_of_modes_are_taken(given_mode: str, mode: str) -> None:
    assert config(snapshot__mode=given_mode).snapshot_mode == mode


@pytest.mark.parametrize(
    ("on", "mode"),
    [
        (("snapshot.data", "start.stream"), "initial"),
        (("snapshot.data", "snapshot.schema"), "initial_only"),
        (("snapshot.schema", "start.stream"), "no_data"),
        (("snapshot.data", "start.stream", "snapshot.on.data.error"), "when_needed"),
    ],
)
def test_a_mode_of_switches_is_the_one_that_it_amounts_to(on: tuple[str, ...], mode: str) -> None:
    switches = {(BASED + name).replace(".", "__"): "true" for name in on}
    assert config(snapshot__mode="configuration_based", **switches).snapshot_mode == mode


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="nothing to do"):
        config(snapshot__mode="configuration_based")
    with pytest.raises(ValidationError, match="no channel file"):
        config(signal__enabled__channels="source,file")
    with pytest.raises(ValidationError, match="is not a channel"):
        config(signal__enabled__channels="sauce")
    with pytest.raises(ValidationError, match="name of a topic"):
        config(signal__kafka__topic="a b")
    for wrong in ("signals", ".signals", "public."):
        with pytest.raises(ValidationError):
            config(signal__data__collection=wrong)


def test_channels_that_are_off_are_not_listened_to() -> None:
    both = config(signal__data__collection="public.signals")
    assert both.signal_table == ("public", "signals")
    assert both.takes_signals_from_kafka
    assert both.signal_topic == "shop-signal"
    kafka = config(signal__data__collection="public.signals", signal__enabled__channels="kafka")
    assert kafka.signal_table is None
    source = config(signal__enabled__channels="source", signal__kafka__topic="orders")
    assert not source.takes_signals_from_kafka
    assert source.signal_topic == "orders"


class NotAllowed:
    """Topics for somebody who may make none."""

    def ensure(self, topic: str, _config: object, *, partitions: int) -> int:
        raise FatalError(f"creating the topic {topic} with {partitions} partition: not allowed")


def test_without_its_topic_a_source_goes_on_and_says_so() -> None:
    signals = Signals("shop", SignalTopic("shop-signal", b"shop"))
    told: list[tuple[str, object]] = []
    with capture_logs() as logs:
        signals.start({}, cast(Topics, NotAllowed()), {}, lambda name, value: told.append((name, value)))
    assert told == [("signals_topic", "creating the topic shop-signal with 1 partition: not allowed")]
    assert [log["log_level"] for log in logs] == ["error"]
    signals.hand_over(cast(SourceTask, object()))
    assert signals.fresh == {}
    signals.close()
