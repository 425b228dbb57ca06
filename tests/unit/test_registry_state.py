"""What a topic written by Confluent's registry means to ours: literal records in, answers out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc.registry.plans import SchemaRequest, register
from cdc.registry.records import Key, Kind, Record
from cdc.registry.state import RegistryState

V1 = '{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}'
V2 = V1.replace("]}", ',{"name":"n","type":["null","int"],"default":null}]}')


def schema(subject: str, version: int, schema_id: int, text: str, *, deleted: bool = False) -> tuple[str, str]:
    key = f'{{"keytype":"SCHEMA","subject":"{subject}","version":{version},"magic":1}}'
    value = (
        f'{{"subject":"{subject}","version":{version},"id":{schema_id},"schema":{json.dumps(text)},'
        f'"deleted":{str(deleted).lower()}}}'
    )
    return key, value


def gone(subject: str, version: int) -> tuple[str, None]:
    return f'{{"keytype":"SCHEMA","subject":"{subject}","version":{version},"magic":1}}', None


NOOP = ('{"keytype":"NOOP","magic":0}', None)


def after(*records: tuple[str, str | None]) -> tuple[RegistryState, list[str]]:
    state = RegistryState()
    problems = []
    for offset, (key, value) in enumerate(records):
        problem = state.apply(offset, key.encode(), None if value is None else value.encode())
        if problem is not None:
            problems.append(problem)
    return state, problems


def register_in(state: RegistryState, subject: str, text: str, **request: Any) -> Any:
    return register(state, subject, SchemaRequest(text, **request), normalize=False)


def test_a_topic_of_confluents_is_understood() -> None:
    state, problems = after(
        NOOP,
        ('{"keytype":"CONFIG","magic":0}', '{"compatibilityLevel":"FULL"}'),
        schema("orders-value", 1, 1, V1),
        schema("orders-key", 1, 2, '"int"'),
        NOOP,
        schema("orders-value", 2, 3, V2),
        schema("returns-value", 1, 1, V1),
        (
            '{"keytype":"CONFIG","subject":"orders-value","magic":0}',
            '{"subject":"orders-value","compatibilityLevel":"NONE"}',
        ),
        ('{"keytype":"MODE","subject":"returns-value","magic":0}', '{"subject":"returns-value","mode":"READONLY"}'),
        ('{"keytype":"CONTEXT","tenant":"default","context":".x","magic":0}', '{"tenant":"default","context":".x"}'),
    )
    assert problems == []
    assert state.subjects() == ["orders-key", "orders-value", "returns-value"]
    assert [(v.version, v.id, v.schema) for v in state.versions("orders-value")] == [(1, 1, V1), (2, 3, V2)]
    uses = state.uses(1)
    assert uses is not None
    assert [(use.subject, use.version) for use in uses] == [("orders-value", 1), ("returns-value", 1)]
    assert state.config_in_scope("orders-value")["compatibilityLevel"] == "NONE"
    assert state.config_in_scope("orders-key")["compatibilityLevel"] == "FULL"
    assert state.mode_in_scope("returns-value") == "READONLY"
    assert state.mode_in_scope("orders-value") == "READWRITE"


def test_registration_goes_on_where_confluents_ended() -> None:
    state, _ = after(schema("s", 1, 41, V1), schema("gone", 1, 57, '"int"'), gone("gone", 1))
    again = register_in(state, "s", V1)
    assert (again.answer.id, again.answer.version, again.records) == (41, 1, ())
    elsewhere = register_in(state, "t", V1)
    assert (elsewhere.answer.id, elsewhere.answer.version) == (41, 1)
    new = register_in(state, "s", V2)
    assert (new.answer.id, new.answer.version) == (58, 2)  # never the id of a schema that is gone


def test_a_schema_stored_in_another_spelling_is_found_again() -> None:
    spaced = '{"name": "Order", "type": "record", "fields": [{"type": "int", "name": "id"}]}'
    state, _ = after(schema("s", 1, 5, spaced))
    assert register_in(state, "s", V1).answer.id == 5


def test_soft_deletion_keeps_the_id_and_permanent_deletion_forgets_it() -> None:
    records: list[tuple[str, str | None]] = [schema("s", 1, 1, V1), schema("s", 2, 2, V2)]
    records.append(('{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}', '{"subject":"s","version":1}'))
    state, _ = after(*records)
    assert [v.version for v in state.versions("s")] == [2]
    assert [v.version for v in state.versions("s", deleted=True)] == [1, 2]
    assert state.by_id(1) is not None
    state, _ = after(*records, gone("s", 1))
    assert state.by_id(1) is None
    assert state.by_id(2) is not None


def test_a_soft_deleted_version_is_one_whatever_compaction_left() -> None:
    state, _ = after(schema("s", 1, 1, V1, deleted=True))
    assert state.subjects() == []
    assert state.subjects(deleted=True) == ["s"]
    assert register_in(state, "t", V1).answer.id == 1


def test_a_schema_that_comes_back_replaces_its_soft_deleted_version() -> None:
    state, _ = after(schema("s", 1, 1, V1, deleted=True))
    plan = register_in(state, "s", V1)
    assert (plan.answer.version, plan.answer.id) == (2, 1)
    assert [(record.key, record.value is None) for record in plan.records] == [
        (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', True),
        (b'{"keytype":"SCHEMA","subject":"s","version":2,"magic":1}', False),
    ]


def test_an_id_belongs_to_the_first_schema_that_carries_it() -> None:
    state, problems = after(schema("s", 1, 1, V1), schema("t", 1, 1, V2))
    assert "id 1 belongs to another schema" in problems[0]
    assert state.subjects() == ["s"]


def test_clear_subject_removes_what_was_deleted_softly() -> None:
    state, _ = after(
        schema("s", 1, 1, V1, deleted=True),
        schema("s", 2, 2, V2),
        ('{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}', '{"subject":"s"}'),
    )
    assert [v.version for v in state.versions("s", deleted=True)] == [2]


def test_contexts_have_ids_of_their_own() -> None:
    state, problems = after(schema("s", 1, 1, V1), schema(":.dev:s", 1, 1, V2))
    assert problems == []
    assert state.contexts() == [".", ".dev"]
    assert state.by_id(1).schema == V1  # type: ignore[union-attr]
    assert state.by_id(1, ":.dev:").schema == V2  # type: ignore[union-attr]
    assert register_in(state, ":.dev:t", V1).answer.id == 2


def test_settings_fall_back_to_context_then_global_then_default() -> None:
    config = '{"compatibilityLevel":"%s"}'
    records: list[tuple[str, str | None]] = [
        ('{"keytype":"CONFIG","subject":":.dev:","magic":0}', config % "FORWARD"),
        ('{"keytype":"CONFIG","subject":":.__GLOBAL:","magic":0}', config % "NONE"),
    ]
    state, _ = after(*records)
    assert state.config_in_scope(":.dev:s")["compatibilityLevel"] == "FORWARD"
    assert state.config_in_scope("s")["compatibilityLevel"] == "NONE"
    assert RegistryState().config_in_scope("s")["compatibilityLevel"] == "BACKWARD"


def test_settings_are_cleared_by_null_under_the_key_that_was_used() -> None:
    old_key = b'{"keytype":"CONFIG","subject":null,"magic":0}'
    state, _ = after((old_key.decode(), '{"compatibilityLevel":"NONE"}'))
    assert state.raw_key(Key(Kind.CONFIG)) == old_key
    state.apply(1, old_key, None)
    assert state.config(None) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"not json", b"{}"),
        (None, b"{}"),
        (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', b"not json"),
        (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', b'{"subject":"s"}'),
        (b'{"keytype":"CONFIG","magic":0}', b"5"),
    ],
)
def test_a_record_that_is_none_is_passed_over_and_told(key: bytes | None, value: bytes) -> None:
    state, _ = after(schema("s", 1, 1, V1))
    assert state.apply(1, key, value) is not None
    assert state.subjects() == ["s"]


def test_a_key_type_of_the_future_is_passed_over() -> None:
    state = RegistryState()
    assert state.apply(0, b'{"keytype":"ASSOC","magic":0}', b'{"a":1}') is None
    assert state.apply(1, b'{"keytype":"NEW","magic":0}', None) is None


def test_references_are_found_in_their_context() -> None:
    value = (
        '{"subject":":.dev:u","version":1,"id":2,"references":[{"name":"Order","subject":"s","version":1}],'
        '"schema":"\\"string\\"","deleted":false}'
    )
    state, _ = after(
        schema(":.dev:s", 1, 1, V1),
        schema("s", 1, 1, V1),
        ('{"keytype":"SCHEMA","subject":":.dev:u","version":1,"magic":1}', value),
    )
    [target] = state.versions(":.dev:s")
    assert [v.subject for v in state.referrers(target, deleted=False)] == [":.dev:u"]
    [other] = state.versions("s")
    assert state.referrers(other, deleted=True) == []


def test_our_own_records_need_no_confluent_extras() -> None:
    state, _ = after(schema("s", 1, 1, V1))
    [version] = state.versions("s")
    assert Record(version.key.encode(), version.value()) == Record(*(part.encode() for part in schema("s", 1, 1, V1)))
