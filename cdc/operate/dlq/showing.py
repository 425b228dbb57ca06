"""``cdc dlq show``: one letter, decoded as far as that goes."""

from __future__ import annotations

import base64
import decimal
import json
from collections.abc import Mapping
from typing import Any, Literal

from cdc.config import Config, ConnectorSpec, converter_properties, find_converter
from cdc.errors import CdcError, ConfigError, Finding
from cdc.operate.dlq.listing import moment
from cdc.operate.dlq.queue import Entry, connector_of, read_queue, with_registry

__all__ = ["render_letter", "show_letter"]


def show_letter(config: Config, connector: str, letter: str | None) -> dict[str, Any]:
    """A letter by its id, or the last open one, as plain values. `ConfigError` if there is none such."""
    spec, queue = connector_of(config, connector)
    entries = read_queue(spec, queue, everything=letter is not None)
    found = next((entry for entry in reversed(entries) if letter in (None, entry.id)), None)
    if found is None:
        what = f"no letter {letter} of {connector}" if letter else f"no open letter of {connector}"
        raise ConfigError([Finding(f"there is {what} in {queue}", remedy="cdc dlq list names them")])
    with with_registry(config, spec.worker) as worker:
        return _described(spec, queue, found, worker)


def _described(spec: ConnectorSpec, queue: str, entry: Entry, worker: Mapping[str, str]) -> dict[str, Any]:
    letter = entry.letter
    told: dict[str, Any] = {
        "letter": entry.id,
        "queue": queue,
        "connector": letter.connector,
        "task": letter.task,
        "topic": letter.topic,
        "partition": None if letter.partition < 0 else letter.partition,
        "offset": None if letter.offset < 0 else letter.offset,
        "position": letter.position or None,
        "stage": letter.stage,
        "error": letter.error,
        "message": letter.message,
        "at": moment(letter.at) or None,
        "timestamp": moment(entry.timestamp) or None,
        "key": _decoded(spec, worker, letter.topic, letter.form, entry.key, is_key=True),
        "value": _decoded(spec, worker, letter.topic, letter.form, entry.value, is_key=False),
        "headers": {name: _text(value) for name, value in entry.headers},
    }
    if letter.size >= 0:
        told["value"] = {"left_out": f"{letter.size} bytes, more than the queue holds"}
    return told


def _decoded(
    spec: ConnectorSpec, worker: Mapping[str, str], topic: str, form: str, payload: bytes | None, *, is_key: bool
) -> Any:
    if payload is None:
        return None
    if form:
        try:
            return json.loads(payload)
        except ValueError:
            return _text(payload)
    config = spec.connector.config
    converter = find_converter(config.key_converter if is_key else config.value_converter)()
    try:
        converter.configure(converter_properties(worker, is_key=is_key), is_key=is_key)
        return _plain(converter.to_connect(topic, payload)[1])
    except CdcError as error:
        return {"undecodable": str(error), "bytes": _text(payload)}
    finally:
        converter.close()


def _plain(value: Any) -> Any:
    """A native value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def render_letter(told: Mapping[str, Any], output: Literal["text", "json"]) -> str:
    """For a person, or for a program."""
    if output == "json":
        return json.dumps(told, indent=2, ensure_ascii=False)
    width = max(len(name) for name in told)
    return "\n".join(
        f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in told.items()
        if value is not None
    )
