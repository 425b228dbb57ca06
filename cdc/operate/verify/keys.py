"""From the canonical text of a key column, as a key of Redis has it, back to text that Postgres reads. Pure.

The opposite of `cdc.codec.canonical.from_postgres` as far as Postgres does not read the canonical text itself, which it
does for everything but bytea and arrays.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import Any

__all__ = ["postgres_text"]

_BOUNDS = re.compile(r"(?:\[-?\d+:-?\d+\])+=")


def postgres_text(type_name: str, canonical: bytes) -> str:
    """Text to cast to the column's type. `ValueError` for what is no canonical text of any value."""
    text = canonical.decode("utf-8")
    if "\0" in text:
        raise ValueError("a NUL character, which no value of Postgres has")
    if type_name.endswith("[]") and text.startswith("[") and not _BOUNDS.match(text):
        return _array(type_name.removesuffix("[]"), json.loads(text, parse_int=str, parse_float=str))
    return _scalar(type_name, text)


def _scalar(type_name: str, text: str) -> str:
    if type_name == "bytea":
        return "\\x" + b64decode(text, validate=True).hex()
    return text


def _array(element: str, value: Any) -> str:
    if isinstance(value, list):
        return "{" + ",".join(_array(element, item) for item in value) + "}"
    if value is None:
        return "NULL"
    text = str(value).lower() if isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"an array element that is {type(value).__name__}")  # noqa: TRY004 - it is the text that is bad
    escaped = _scalar(element, text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
