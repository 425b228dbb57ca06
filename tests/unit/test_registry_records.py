"""The format of the ``_schemas`` topic, against literal records of Confluent's registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.registry.admin import delete_subject, delete_version, set_config, set_mode
from cdc.registry.plans import SchemaRequest, register
from cdc.registry.records import Key, Kind, Record, RecordError, Reference, SchemaVersion, decode_key, decode_value
from cdc.registry.state import RegistryState

# As Confluent Schema Registry 7.x writes them.
SCHEMA_KEY = b'{"keytype":"SCHEMA","subject":"orders-value","version":1,"magic":1}'
AVRO_VALUE = b'{"subject":"orders-value","version":1,"id":7,"schema":"\\"string\\"","deleted":false}'
JSON_VALUE = (
    b'{"subject":"orders-value","version":1,"id":7,"schemaType":"JSON",'
    b'"references":[{"name":"a.json","subject":"a","version":2}],"schema":"{\\"type\\":\\"object\\"}","deleted":true}'
)
RULED_VALUE = (
    b'{"subject":"orders-value","version":1,"id":7,"md5":"4JSsO8NFutbXWaxvQuqU9w==","metadata":{"properties":{"a":"b"}},'
    b'"ruleSet":{"domainRules":[]},"schema":"\\"string\\"","deleted":false}'
)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (Key(Kind.SCHEMA, "orders-value", 1), SCHEMA_KEY),
        (Key(Kind.CONFIG), b'{"keytype":"CONFIG","magic":0}'),
        (Key(Kind.CONFIG, "é"), '{"keytype":"CONFIG","subject":"é","magic":0}'.encode()),
        (Key(Kind.MODE, "s"), b'{"keytype":"MODE","subject":"s","magic":0}'),
        (Key(Kind.DELETE_SUBJECT, "s"), b'{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}'),
        (Key(Kind.CLEAR_SUBJECT, "s"), b'{"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}'),
        (Key(Kind.NOOP), b'{"keytype":"NOOP","magic":0}'),
    ],
)
def test_keys_are_confluents_byte_for_byte(key: Key, raw: bytes) -> None:
    assert key.encode() == raw
    assert decode_key(raw) == key


def test_older_spellings_of_keys_are_understood() -> None:
    assert decode_key(b'{"keytype":"CONFIG","subject":null,"magic":0}') == Key(Kind.CONFIG)
    assert decode_key(b'{"subject": "s", "version": 3, "magic": 0, "keytype": "SCHEMA"}') == Key(Kind.SCHEMA, "s", 3)


@pytest.mark.parametrize("raw", [AVRO_VALUE, JSON_VALUE, RULED_VALUE])
def test_schemas_are_confluents_byte_for_byte(raw: bytes) -> None:
    version = SchemaVersion.from_body(decode_key(SCHEMA_KEY), decode_value(raw))
    assert (version.key.encode(), version.value()) == (SCHEMA_KEY, raw)


def test_what_confluent_adds_later_is_read_past() -> None:
    raw = (
        b'{"subject":"orders-value","version":1,"id":7,"schemaType":"AVRO","references":[],"schema":"\\"string\\"",'
        b'"deleted":false,"offset":3,"ts":1700000000000,"new":1}'
    )
    version = SchemaVersion.from_body(decode_key(SCHEMA_KEY), decode_value(raw))
    assert version == SchemaVersion("orders-value", 1, 7, '"string"')


def test_the_guid_is_the_one_confluent_computes() -> None:
    # MD5 over the text, then over name, subject and version (four bytes) of each reference.
    assert SchemaVersion("s", 1, 1, '"string"').guid == "095d71cf-1255-6b9d-5e33-0ad575b3df5d"
    referring = SchemaVersion("s", 1, 1, '"string"', references=(Reference("n", "t", 1),))
    assert referring.guid == "3fd1e3a0-6c2b-281a-9b92-3edeac810b90"


def test_the_guid_of_a_schema_with_metadata_is_the_one_that_was_stored() -> None:
    stored = SchemaVersion("s", 1, 1, '"string"', metadata="{}", md5="4JSsO8NFutbXWaxvQuqU9w==")
    assert stored.guid == "e094ac3b-c345-bad6-d759-ac6f42ea94f7"
    assert SchemaVersion("s", 1, 1, '"string"', metadata="{}").guid is None
    assert SchemaVersion("s", 1, 1, '"string"', md5="no md5").guid is None


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keytype":5}',
        b'{"keytype":"SCHEMA"}',
        b'{"keytype":"SCHEMA","subject":"s","version":"1"}',
        b'{"keytype":"CONFIG","subject":5}',
    ],
)
def test_a_key_that_is_none_is_refused(raw: bytes | None) -> None:
    with pytest.raises(RecordError):
        decode_key(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"subject":"orders-value","version":1,"id":"x","schema":"\\"string\\""}',
        b'{"subject":"orders-value","version":2,"id":1,"schema":"\\"string\\""}',
        b'{"subject":"other","version":1,"id":1,"schema":"\\"string\\""}',
        b'{"subject":"orders-value","version":1,"id":1,"schema":5}',
        b'{"subject":"orders-value","version":1,"id":1,"schema":"\\"string\\"","references":[5]}',
    ],
)
def test_a_value_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(RecordError):
        SchemaVersion.from_body(decode_key(SCHEMA_KEY), decode_value(raw))


@given(st.text(), st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1), st.text(), st.booleans())
def test_any_version_survives_its_record(subject: str, number: int, schema_id: int, schema: str, deleted: bool) -> None:
    version = SchemaVersion(subject, number, schema_id, schema, "JSON", (Reference("é", subject, 1),), deleted=deleted)
    key = decode_key(version.key.encode())
    assert SchemaVersion.from_body(key, decode_value(version.value())) == version


def test_every_operation_writes_confluents_records() -> None:
    state = RegistryState()
    written: list[tuple[str, str | None]] = []

    def do(records: list[Record]) -> None:
        for record in records:
            assert state.apply(len(written), record.key, record.value) is None
            written.append((record.key.decode(), None if record.value is None else record.value.decode()))

    do(list(set_config(state, None, {"compatibility": "none"}).records))
    do(list(set_config(state, "s", {"compatibility": "FULL", "normalize": True}).records))
    do(list(set_mode(state, "s", "readwrite", force=False).records))
    do(list(register(state, "s", SchemaRequest('"int"'), normalize=False).records))
    do(list(register(state, "t", SchemaRequest('{"type": "object"}', "JSON"), normalize=False).records))
    do(list(delete_version(state, "t", 1, permanent=False).records))
    do(list(delete_subject(state, "s", permanent=False).records))
    do(list(delete_subject(state, "s", permanent=True).records))
    assert written == [
        ('{"keytype":"CONFIG","magic":0}', '{"compatibilityLevel":"NONE"}'),
        (
            '{"keytype":"CONFIG","subject":"s","magic":0}',
            '{"subject":"s","normalize":true,"compatibilityLevel":"FULL"}',
        ),
        ('{"keytype":"MODE","subject":"s","magic":0}', '{"subject":"s","mode":"READWRITE"}'),
        (
            '{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}',
            '{"subject":"s","version":1,"id":1,"schema":"\\"int\\"","deleted":false}',
        ),
        (
            '{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}',
            '{"subject":"t","version":1,"id":2,"schemaType":"JSON","schema":"{\\"type\\":\\"object\\"}","deleted":false}',
        ),
        (
            '{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}',
            '{"subject":"t","version":1,"id":2,"schemaType":"JSON","schema":"{\\"type\\":\\"object\\"}","deleted":true}',
        ),
        ('{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}', '{"subject":"s","version":1}'),
        ('{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', None),
        ('{"keytype":"MODE","subject":"s","magic":0}', None),
        ('{"keytype":"CONFIG","subject":"s","magic":0}', None),
    ]
