"""Connect values as text of headers: what Kafka Connect's SimpleHeaderConverter writes (``Values.convertToString``).

Unlike the JSON converter it prints a decimal as a number, and Connect's dates and times as text.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from cdc.record import Schema

__all__ = ["header_text"]

_DAY_MS: Final = 86_400_000
_DATES: Final = {
    "org.apache.kafka.connect.data.Date": _DAY_MS,
    "org.apache.kafka.connect.data.Time": 1,
    "org.apache.kafka.connect.data.Timestamp": 1,
}


def header_text(schema: Schema, value: Any) -> str:
    """The text of a native value. A text itself stands without quotes, inside of anything else with them."""
    return str(value) if schema.type == "string" and value is not None else _inner(schema, value)


def _inner(schema: Schema, value: Any) -> str:
    if value is None:
        return "null"
    if schema.name == "org.apache.kafka.connect.data.Decimal":
        unscaled = int.from_bytes(value, "big", signed=True)
        scale = int(dict(schema.parameters)["scale"])
        return f"{Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale)):f}"
    if schema.name in _DATES:
        return _quoted(_date_text(value * _DATES[schema.name]))
    match schema.type:
        case "string":
            return _quoted(value)
        case "bytes":
            return _quoted(base64.b64encode(value).decode("ascii"))
        case "boolean":
            return "true" if value else "false"
        case "array" if schema.values:
            return f"[{','.join(_inner(schema.values, item) for item in value)}]"
        case "map" if schema.keys and schema.values:
            pairs = value.items() if isinstance(value, dict) else value
            return f"{{{','.join(f'{_inner(schema.keys, k)}:{_inner(schema.values, v)}' for k, v in pairs)}}}"
        case "struct":
            parts = (f"{_quoted(field.name)}:{_inner(field.schema, value[field.name])}" for field in schema.fields)
            return f"{{{','.join(parts)}}}"
    return str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _date_text(ms: int) -> str:
    """As Connect does, by what the number looks like: a time within the first day, a date at midnight, else both."""
    moment = datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000, tzinfo=None)
    if 0 <= ms < _DAY_MS:
        return moment.time().isoformat("milliseconds") + "Z"
    if ms % _DAY_MS == 0:
        return moment.date().isoformat()
    return moment.isoformat(timespec="milliseconds") + "Z"
