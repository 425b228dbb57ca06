"""Chains of transforms and foreign properties: what is accepted, what is refused, where it is said."""

from __future__ import annotations

import json

import pytest

from cdc.config import Config, loads
from cdc.errors import ConfigError
from cdc.postgres.foreign import FOREIGN
from cdc.record import ConnectRecord
from cdc.runtime.source_transforms import load_chain

CONNECTOR = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "database.user": "u",
    "database.dbname": "d",
    "topic.prefix": "p",
}


def load(**properties: str) -> Config:
    own = {name.replace("__", "."): value for name, value in properties.items()}
    form = {"worker": {"bootstrap.servers": "h:9092"}, "connectors": {"shop": {**CONNECTOR, **own}}}
    return loads({"bridge.yaml": json.dumps(form)})


def refused(**properties: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(**properties)
    return {finding.key.removeprefix("connectors.shop."): finding.message for finding in caught.value.findings}


def test_a_chain_runs_in_order_where_its_predicates_say() -> None:
    config = load(
        transforms="a, b",
        transforms__a__type="io.debezium.transforms.ByLogicalTableRouter",
        transforms__a__topic__regex="(.*)",
        transforms__a__topic__replacement="$1-a",
        transforms__a__predicate="mine",
        transforms__a__negate="true",
        transforms__b__type="ByLogicalTableRouter",
        transforms__b__topic__regex="(.*)-a",
        transforms__b__topic__replacement="$1-b",
        predicates="mine",
        predicates__mine__type="org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
        predicates__mine__pattern="no.*",
    )
    chain = load_chain(config.connectors[0].worker)
    assert chain is not None
    topics = [chain.apply(ConnectRecord(topic, None, None, None, None)) for topic in ("yes", "not")]
    chain.close()
    assert [record.topic for record in topics if record] == ["yes-b", "not"]


def test_no_transforms_is_no_chain() -> None:
    assert load_chain(load().connectors[0].worker) is None


def test_everything_wrong_with_a_chain_is_said_at_once() -> None:
    assert refused(
        transforms="a,b,c,c",
        transforms__a__type="io.debezium.transforms.ExtractNewRecordStat",
        transforms__b__topic__regex="x",
        transforms__c__type="TimezoneConverter",
        transforms__c__zone="x",
        transforms__c__predicate="gone",
        predicates="p",
        predicates__p__type="TopicNameMatches",
    ) == {
        "transforms": "names c more than once",
        "transforms.a.type": "there is no transform io.debezium.transforms.ExtractNewRecordStat: "
        "did you mean io.debezium.transforms.ExtractNewRecordState?",
        "transforms.b.type": "is required",
        "transforms.c.predicate": "there is no predicate gone",
        "transforms.c.converted.timezone": "Field required",
        "transforms.c.zone": "there is no such property",
        "predicates.p.pattern": "Field required",
    }


def test_properties_of_transforms_that_are_not_listed_are_told_of() -> None:
    warned = {warning.key for warning in load(transforms__old__type="Anything").warnings}
    assert warned == {"connectors.shop.transforms.old.type"}


def test_every_property_of_debezium_that_changes_nothing_here_is_taken_with_a_notice() -> None:
    harmless = {name: accepted[0] if accepted else "anything" for name, (accepted, _) in FOREIGN.items()}
    warnings = load(**harmless, internal__thing="x").warnings
    assert {warning.key.removeprefix("connectors.shop.") for warning in warnings} == {*harmless, "internal.thing"}


def test_properties_of_debezium_that_would_change_something_are_refused_by_name() -> None:
    found = refused(slot__drop__on__stop="true", post__processors="x")
    assert found["slot.drop.on.stop"] == "only 'false' is supported: a dropped slot is a gap"
    assert found["post.processors"].startswith("only '' is supported: classes of Java")


def test_topics_are_created_as_the_connector_says() -> None:
    worker = load(topic__creation__default__partitions="5").connectors[0].worker
    assert worker["topic.creation.default.partitions"] == "5"
