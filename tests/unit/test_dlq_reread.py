"""Which rows a letter stands for, as the command that has them read again; and letters as their headers tell them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc.config import Config, loads
from cdc.operate.dlq.letters_of import Rows
from cdc.operate.dlq.listing import render_list
from cdc.operate.dlq.queue import Entry, connector_of
from cdc.operate.dlq.reread import reread_of
from cdc.record import HEADER_SCHEMA
from cdc.runtime.letters import (
    CONTEXT,
    HEADER_LETTER,
    Cause,
    Letter,
    letter_headers,
    made,
    parse_letter,
    parse_receipt,
    receipt_header,
)


@pytest.fixture(scope="module")
def config() -> Config:
    return bridge()


@pytest.fixture(scope="module")
def bare() -> Config:
    """Keys in JSON without schemas."""
    return bridge({"key.converter.schemas.enable": "false"})


def bridge(more: dict[str, str] | None = None) -> Config:
    source = {
        "connector.class": "postgres",
        "database.user": "cdc",
        "database.dbname": "shop",
        "topic.prefix": "shop",
        "key.converter": "json",
    }
    sink = {
        "connector.class": "redis",
        "topics.regex": r"shop\.public\..*",
        "key.converter": "json",
        "value.converter": "json",
        "errors.deadletterqueue.topic.name": "dlq",
        **(more or {}),
    }
    form = {
        "worker": {"bootstrap.servers": "localhost:1"},
        "connectors": {"shop": source, "cache": sink},
    }
    return loads({"bridge.json": json.dumps(form)})


def entry(
    key: bytes | None,
    topic: str = "shop.public.t",
    form: str = "",
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Entry:
    letter = Letter("cache", 0, topic, 0, 5, "TASK_PUT", "x.Y", "no", form=form)
    return Entry((0, 1), letter, key, b"value", headers, 0)


def wire(**row: Any) -> bytes:
    fields = [{"field": name, "type": "int32" if isinstance(value, int) else "string"} for name, value in row.items()]
    return json.dumps({"schema": {"type": "struct", "fields": fields}, "payload": row}).encode()


@pytest.mark.parametrize(
    ("key", "where"),
    [
        (wire(id=5), """ --where '"id" = 5'"""),
        (wire(a="it's", B=2), """ --where '"a" = '"'"'it'"'"''"'"'s'"'"' and "B" = 2'"""),
        (b"garbage", ""),
        (None, ""),
    ],
)
def test_the_row_of_a_letter_is_found_by_its_key(config: Config, key: bytes | None, where: str) -> None:
    spec, queue = connector_of(config, "cache")
    assert queue == "dlq"
    rows = Rows(spec, spec.worker)
    found = reread_of(config, rows, entry(key))
    assert not isinstance(found, str)
    assert found.command == f"cdc snapshot FILE --connector shop --table public.t{where}"
    rows.close()


def test_a_source_s_letter_in_json_tells_its_row(config: Config) -> None:
    spec, _ = connector_of(config, "cache")
    found = reread_of(config, Rows(spec, spec.worker), entry(wire(id=7), form="json"))
    assert not isinstance(found, str)
    assert found.where == '"id" = 7'
    found = reread_of(config, Rows(spec, spec.worker), entry(b'{"id": "8"}', form="text"))
    assert not isinstance(found, str)
    assert found.where == "\"id\" = '8'"


def test_a_key_whose_types_only_a_header_tells_stands_for_every_row(bare: Config) -> None:
    """What JSON without schemas makes of a date is a number, which Postgres does not compare with a date."""
    spec, _ = connector_of(bare, "cache")
    rows = Rows(spec, spec.worker)
    key = b'{"day": 19000}'
    date = b'{"type":"struct","fields":[{"type":"int32","name":"org.apache.kafka.connect.data.Date","field":"day"}]}'
    for header, where in (
        (None, '"day" = 19000'),
        (b'{"value":' + date + b"}", '"day" = 19000'),  # of the value alone: the key says all itself
        (b'{"key":' + date + b"}", ""),
        (b"garbage", ""),
    ):
        found = reread_of(bare, rows, entry(key, headers=() if header is None else ((HEADER_SCHEMA, header),)))
        assert not isinstance(found, str)
        assert found.where == where
    rows.close()


@pytest.mark.parametrize("topic", ["other.public.t", "shop.t", "shopping.public.t"])
def test_a_topic_that_no_source_writes_is_said_so(config: Config, topic: str) -> None:
    spec, _ = connector_of(config, "cache")
    found = reread_of(config, Rows(spec, spec.worker), entry(wire(id=1), topic))
    assert found == f"no source of this configuration writes {topic}: have its source write the row again"


def test_headers_come_back_as_they_were() -> None:
    with pytest.raises(ValueError, match="ża") as raised:
        int("ża")
    cause = Cause("VALUE_CONVERTER", "a.B", raised.value)
    letter = made(cause, "cache", 3, "t", 1, 2, position="p", form="json")
    headers: Any = letter_headers(letter, cause, context=True)
    assert parse_letter(headers) == letter
    alone = [(name, value) for name, value in headers if name != HEADER_LETTER]
    told = parse_letter(alone)
    assert told is not None
    assert (told.coordinates[:3], told.stage, told.message, told.at) == (
        ("t", 1, 2),
        "VALUE_CONVERTER",
        letter.message,
        -1,
    )
    assert dict(alone)[CONTEXT + "exception.stacktrace"].startswith(b"Traceback")
    assert parse_receipt([receipt_header(letter)]) == letter.coordinates
    assert parse_receipt([("cdc.letter.done", b"[1]")]) is None
    assert parse_letter([(HEADER_LETTER, b"{}")]) is None
    assert parse_letter([("theirs", b"x")]) is None
    assert letter_headers(letter, cause, context=False) == headers[:1]


def test_nothing_to_list_is_said() -> None:
    assert render_list([], "text") == "no open letters"
    assert json.loads(render_list([], "json")) == {"letters": []}
