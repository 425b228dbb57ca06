"""Requests against the registry's state: what is decided, written and refused, with Confluent's codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cdc.registry import admin, plans
from cdc.registry.errors import RestError
from cdc.registry.plans import Plan, SchemaRequest
from cdc.registry.records import Reference
from cdc.registry.state import RegistryState


class Registry:
    """A state to which plans are applied at once."""

    def __init__(self) -> None:
        self.state = RegistryState()
        self._offset = 0

    def do(self, plan: Plan[Any]) -> Any:
        for record in plan.records:
            assert self.state.apply(self._offset, record.key, record.value) is None
            self._offset += 1
        return plan.answer

    def register(self, subject: str, schema: Any, *, normalize: bool = False, **request: Any) -> tuple[int, int]:
        """Version and id."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        found = self.do(plans.register(self.state, subject, SchemaRequest(text, **request), normalize=normalize))
        return found.version, found.id

    def level(self, level: str, subject: str | None = None) -> None:
        self.do(admin.set_config(self.state, subject, {"compatibility": level}))

    def mode(self, mode: str, subject: str | None = None, *, force: bool = False) -> None:
        self.do(admin.set_mode(self.state, subject, mode, force=force))

    def delete(self, subject: str, version: int | None = None, *, permanent: bool = False) -> Any:
        if version is None:
            return self.do(admin.delete_subject(self.state, subject, permanent=permanent))
        return self.do(admin.delete_version(self.state, subject, version, permanent=permanent))


@pytest.fixture
def registry() -> Registry:
    return Registry()


def record(*names: str, kind: Any = "int", **attributes: Any) -> Mapping[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": n, "type": kind, **attributes} for n in names]}


def refused(code: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> RestError:
    with pytest.raises(RestError) as caught:
        call(*args, **kwargs)
    assert caught.value.code == code
    assert caught.value.status == (code if code < 1000 else code // 100)
    return caught.value


def test_versions_count_per_subject_and_ids_globally(registry: Registry) -> None:
    assert registry.register("a", record("x")) == (1, 1)
    assert registry.register("b", record("x")) == (1, 1)
    assert registry.register("b", record("y", default=1)) == (2, 2)
    assert registry.register("a", record("x")) == (1, 1)
    assert registry.register("a", record("y", default=1)) == (2, 2)


def test_a_schema_written_otherwise_is_the_same(registry: Registry) -> None:
    assert registry.register("a", '{"type":"record","name":"R","fields":[],"connect.name":"R"}') == (1, 1)
    assert registry.register("a", '{ "connect.name":"R", "name":"R", "fields":[ ], "type":"record"}') == (1, 1)
    registry.level("NONE")
    assert registry.register("a", '{"type":"record","name":"R","fields":[],"connect.name":"S"}') == (2, 2)


def test_equal_texts_of_different_types_have_different_ids(registry: Registry) -> None:
    assert registry.register("a", "true", schema_type="JSON") == (1, 1)
    assert registry.register("b", "true", schema_type="PROTOBUF") == (1, 2)


def test_references_are_part_of_a_schema(registry: Registry) -> None:
    registry.register("address", {"type": "record", "name": "A", "fields": []})
    user = {"type": "record", "name": "U", "fields": [{"name": "a", "type": "A"}]}
    reference = (Reference("A", "address", 1),)
    assert registry.register("user", user, references=reference) == (1, 2)
    assert registry.register("user", user, references=reference) == (1, 2)
    refused(42201, registry.register, "user2", user)
    missing = refused(42201, registry.register, "user2", user, references=(Reference("A", "address", 2),))
    assert "address" in str(missing)
    refused(42206, registry.delete, "address")
    refused(42206, registry.delete, "address", 1)
    registry.delete("user")
    assert registry.delete("address") == [1]


def test_references_that_go_round_are_refused(registry: Registry) -> None:
    registry.register("a", "true", schema_type="JSON")
    registry.mode("IMPORT", "a", force=True)
    again = (Reference("a", "a", 1),)
    registry.mode("READWRITE", "a")
    registry.level("NONE")
    registry.register("b", "true", schema_type="JSON", references=again)
    # A foreign record may close the circle; we refuse to follow it.
    key = b'{"keytype":"SCHEMA","subject":"a","version":2,"magic":1}'
    value = {"subject": "a", "version": 2, "id": 9, "schemaType": "JSON", "schema": "false", "deleted": False}
    value["references"] = [{"name": "a", "subject": "a", "version": 2}]
    assert registry.state.apply(99, key, json.dumps(value).encode()) is None
    error = refused(42201, registry.register, "c", "true", schema_type="JSON", references=(Reference("a", "a", 2),))
    assert "circle" in str(error)


def test_an_incompatible_schema_is_refused_with_reasons(registry: Registry) -> None:
    registry.register("a", record("x"))
    error = refused(409, registry.register, "a", record("x", "y"))
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in str(error)
    assert "oldSchemaVersion: 1" in str(error)
    registry.level("NONE", "a")
    assert registry.register("a", record("x", "y")) == (2, 2)


def test_soft_deleted_versions_do_not_count_for_compatibility(registry: Registry) -> None:
    registry.register("a", record("x"))
    registry.delete("a", 1)
    assert registry.register("a", record("x", kind="string")) == (2, 2)


def test_other_kinds_of_schema_are_kept_but_not_compared(registry: Registry) -> None:
    assert registry.register("j", {"type": "object"}, schema_type="JSON") == (1, 1)
    assert registry.register("j", '{ "type" : "object" }', schema_type="JSON") == (1, 1)
    error = refused(409, registry.register, "j", {"type": "array"}, schema_type="JSON")
    assert "NONE" in str(error)
    registry.level("NONE", "j")
    assert registry.register("j", {"type": "array"}, schema_type="JSON") == (2, 2)
    assert registry.register("p", 'syntax = "proto3";', schema_type="PROTOBUF") == (1, 3)


def test_another_kind_of_schema_is_incompatible(registry: Registry) -> None:
    registry.register("a", record("x"))
    refused(409, registry.register, "a", "true", schema_type="JSON")


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ("", "AVRO"),
        ("  ", "JSON"),
        ("{", "AVRO"),
        ("{", "JSON"),
        ("5", "JSON"),
        ('{"type":"rec"}', "AVRO"),
        ("x", "XML"),
        ('{"type":"record","name":"R","fields":[],"doc":"\\ud800"}', "AVRO"),
    ],
)
def test_what_is_no_schema_is_refused(registry: Registry, schema: str, kind: str) -> None:
    refused(42201, registry.register, "a", schema, schema_type=kind)
    assert registry.state.subjects(deleted=True) == []


@pytest.mark.parametrize("subject", ["", "a\nb", "\x7f", "__GLOBAL", "__EMPTY", ":.__GLOBAL:x", ":.ctx:"])
def test_a_name_that_is_none_is_refused(registry: Registry, subject: str) -> None:
    refused(42208, registry.register, subject, record("x"))


@pytest.mark.parametrize("subject", ["a/b", "naïve", "x y", "%2F", "a:b", ":.ctx:s", "*x"])
def test_any_other_name_is_taken(registry: Registry, subject: str) -> None:
    assert registry.register(subject, record("x")) == (1, 1)


def test_lookup_tells_a_missing_subject_from_a_missing_schema(registry: Registry) -> None:
    def lookup(subject: str, schema: Any, *, deleted: bool = False) -> Any:
        request = SchemaRequest(json.dumps(schema))
        return plans.lookup(registry.state, subject, request, normalize=False, deleted=deleted)

    refused(40401, lookup, "a", record("x"))
    registry.register("a", record("x"))
    assert lookup("a", record("x")).version == 1
    refused(40403, lookup, "a", record("y"))
    registry.delete("a")
    refused(40401, lookup, "a", record("x"))
    assert lookup("a", record("x"), deleted=True).version == 1


def test_versions_are_found_by_number_and_as_the_latest(registry: Registry) -> None:
    def get(number: int, *, deleted: bool = False) -> int:
        return plans.get_version(registry.state, "a", number, deleted=deleted).version

    refused(40401, get, 1)
    registry.register("a", record("x"))
    registry.register("a", record("y", default=1))
    assert (get(1), get(2), get(-1)) == (1, 2, 2)
    refused(40402, get, 3)
    registry.delete("a", 2)
    assert (get(-1), get(-1, deleted=True)) == (1, 2)


def test_deletion_is_soft_first_then_permanent(registry: Registry) -> None:
    refused(40401, registry.delete, "a")
    refused(40401, registry.delete, "a", 1)
    registry.register("a", record("x"))
    registry.register("a", record("y", default=1))
    refused(40402, registry.delete, "a", 3)
    refused(40405, registry.delete, "a", permanent=True)
    refused(40407, registry.delete, "a", 1, permanent=True)
    assert registry.delete("a", 1) == 1
    refused(40406, registry.delete, "a", 1)
    assert registry.delete("a", 1, permanent=True) == 1
    refused(40402, registry.delete, "a", 1)
    assert registry.delete("a") == [2]
    refused(40404, registry.delete, "a")
    registry.level("FULL", "a")
    assert registry.delete("a", permanent=True) == [2]
    assert registry.state.config("a") is None
    assert registry.register("a", record("x")) == (1, 3)  # ids are never used again


def test_deleting_the_last_version_for_good_takes_the_settings_along(registry: Registry) -> None:
    registry.register("a", record("x"))
    registry.level("FULL", "a")
    registry.mode("READWRITE", "a")
    registry.delete("a", 1)
    registry.delete("a", 1, permanent=True)
    assert (registry.state.config("a"), registry.state.mode("a")) == (None, None)


def test_levels_are_set_and_taken_back(registry: Registry) -> None:
    assert registry.do(admin.set_config(registry.state, None, {"compatibility": "full"})) == {"compatibility": "FULL"}
    registry.level("NONE", "a")
    assert registry.do(admin.delete_config(registry.state, "a")) == {"compatibilityLevel": "NONE"}
    assert registry.state.config_in_scope("a") == {"compatibilityLevel": "FULL"}
    refused(40401, admin.delete_config, registry.state, "a")
    assert registry.do(admin.delete_config(registry.state, None)) == {"compatibilityLevel": "FULL"}
    assert registry.do(admin.delete_config(registry.state, None)) == {"compatibilityLevel": "BACKWARD"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"compatibility": "SIDEWARD"}, 42203),
        ({"compatibility": 5}, 42203),
        ({}, 42203),
        ({"compatibility": "NONE", "alias": "b"}, 422),
        ({"normalize": "yes"}, 422),
    ],
)
def test_settings_that_are_none_are_refused(registry: Registry, body: Mapping[str, Any], code: int) -> None:
    refused(code, admin.set_config, registry.state, "a", body)


def test_what_confluent_set_is_kept_when_the_level_changes(registry: Registry) -> None:
    key = b'{"keytype":"CONFIG","subject":"a","magic":0}'
    registry.state.apply(0, key, b'{"subject":"a","alias":"b","compatibilityLevel":"NONE","compatibilityGroup":"g"}')
    plan = admin.set_config(registry.state, "a", {"compatibility": "FULL"})
    assert plan.records[0].value == (
        b'{"subject":"a","alias":"b","compatibilityLevel":"FULL","compatibilityGroup":"g"}'
    )


def test_normalizing_can_be_a_setting(registry: Registry) -> None:
    one = '{"type":"record","name":"R","fields":[],"b":1,"a":2}'
    other = '{"type":"record","name":"R","fields":[],"a":2,"b":1}'
    assert registry.register("a", one) == (1, 1)
    assert registry.register("a", other) == (2, 2)
    registry.do(admin.set_config(registry.state, "n", {"normalize": True}))
    assert registry.register("n", one)[1] == registry.register("n", other)[1]
    assert registry.register("m", one, normalize=True) == (1, 2)


def test_read_only_means_read_only(registry: Registry) -> None:
    registry.register("a", record("x"))
    registry.mode("READONLY")
    refused(42205, registry.register, "a", record("y", default=1))
    refused(42205, registry.delete, "a")
    refused(42205, registry.delete, "a", 1)
    refused(42205, registry.level, "NONE", "a")
    registry.mode("READWRITE", "a")
    assert registry.register("a", record("y", default=1)) == (2, 2)


def test_modes_are_checked(registry: Registry) -> None:
    refused(42204, registry.mode, "SOMETIMES")
    refused(42204, registry.mode, "FORWARD")
    refused(40401, admin.delete_mode, registry.state, "a")
    registry.mode("readonly", "a")
    assert registry.do(admin.delete_mode(registry.state, "a")) == {"mode": "READONLY"}


def test_import_takes_given_ids_and_versions(registry: Registry) -> None:
    refused(42205, registry.register, "a", record("x"), id=7)
    registry.register("z", record("z"))
    refused(42205, registry.mode, "IMPORT")
    registry.mode("IMPORT", "a")
    refused(42205, registry.register, "a", record("x"))
    assert registry.register("a", record("x"), id=7, version=3) == (3, 7)
    assert registry.register("a", record("x"), id=7, version=3) == (3, 7)
    assert registry.register("a", record("x", "y"), id=8) == (4, 8)
    refused(42205, registry.register, "a", record("other"), id=7)
    refused(42205, registry.register, "a", record("other"), id=9, version=3)
    registry.mode("READWRITE", "a")
    assert registry.register("b", record("new")) == (1, 9)


def test_import_mode_wants_a_subject_without_schemas(registry: Registry) -> None:
    registry.register("a", record("x"))
    refused(42205, registry.mode, "IMPORT", "a")
    registry.delete("a")
    registry.mode("IMPORT", "a")
    assert registry.state.subjects(deleted=True) == []


def test_compatibility_is_told_without_registering(registry: Registry) -> None:
    def problems(schema: Any, number: int | None) -> list[str]:
        return plans.compatibility_of(registry.state, "a", SchemaRequest(json.dumps(schema)), number, normalize=False)

    assert problems(record("x"), -1) == []
    refused(40402, problems, record("x"), 1)
    registry.register("a", record("x"))
    registry.register("a", record("x", "y", default=1))
    wanting = record("x", "y")
    assert problems(wanting, 1) != []
    assert problems(wanting, 2) == []
    assert problems(wanting, None) == []
    registry.level("BACKWARD_TRANSITIVE", "a")
    assert problems(wanting, None) != []
    assert registry.state.versions("a")[-1].version == 2


def test_a_version_may_be_given_if_it_is_the_next(registry: Registry) -> None:
    assert registry.register("a", record("x"), version=1) == (1, 1)
    refused(42201, registry.register, "a", record("y", default=1), version=5)
    assert registry.register("a", record("y", default=1), version=2) == (2, 2)
