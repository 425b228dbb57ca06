"""Column defaults for schemas: the constants among what ``pg_get_expr`` prints.

Debezium puts a column's default into its schema. It reads the expression with two patterns, and so spoils quotes,
functions and computed expressions. Here an expression counts only when it *is* one constant: a literal, its casts, its
parentheses; anything computed has no default in the schema. ``nextval(…)`` counts as 0, as Debezium writes it for
serial columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from cdc.codec.connect_json import value_to_json
from cdc.codec.values import Inexact, reader
from cdc.record import NO_DEFAULT, Schema

__all__ = ["constant_default"]

_LITERAL = re.compile(
    r"""\s*(?:
        (?P<word>true|false)\b
      | (?P<number>-?\d+(?:\.\d+)?)
      | B?'(?P<text>(?:[^']|'')*)'
    )\s*""",
    re.VERBOSE,
)
_CAST = re.compile(
    r"""\s*::\s*
    (?P<name>(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)(?:\.(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)|\ [a-z]+)*)
    (?:\((?P<size>\d+)(?:,(?P<scale>\d+))?\))?
    (?P<rest>(?:\ [a-z]+)*)\s*""",
    re.VERBOSE,
)
_NEXTVAL = re.compile(r"\s*\(*\s*nextval\('(?:[^']|'')+'::(?:regclass|text)\)(?:::\w+|\)|\s)*")
_OPEN, _CLOSE = re.compile(r"\s*\("), re.compile(r"\s*\)\s*")
_KEEPING = frozenset({"text", "character varying", "smallint", "integer", "bigint", "numeric"})
"""Types that a literal can pass through on its way to another type without its text changing."""
_ROUNDED = frozenset({"numeric_double", "interval_us"})
"""Kinds whose schema cannot say the constant itself: the default is then what such a value is written as."""
_INTEGERS = frozenset({"int16", "int32", "int64"})


def constant_default(expression: str, schema: Schema, kind: str, params: Sequence[Any]) -> Any:
    """The default in the form of Connect's JSON converter, or `NO_DEFAULT`.

    ``expression`` is the text of ``pg_get_expr`` in a session with this package's settings; ``kind`` and ``params`` say
    how the column's own text is read.
    """
    if kind in _INTEGERS and _NEXTVAL.fullmatch(expression):
        return 0
    text = _constant(expression)
    if text is None:
        return NO_DEFAULT
    if kind == "boolean":
        text = {"true": "t", "false": "f"}.get(text, text)
    elif kind == "decimal":
        text = _scaled(text, params[0])
    try:
        value = reader(kind, params)(text.encode("utf-8"))
    except ValueError:
        return NO_DEFAULT  # such as 'now', or a cast that computes
    if isinstance(value, Inexact):
        value = value.fallback if kind in _ROUNDED else None
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NO_DEFAULT
    return value_to_json(schema, value)


def _constant(expression: str) -> str | None:
    """The text of the constant that ``expression`` is, ``None`` when it computes something or is NULL."""
    text, casts, end = _operand(expression, 0)
    if text is None or end != len(expression):
        return None
    for place, cast in enumerate(casts):
        name, size, scale = cast
        if place < len(casts) - 1 and name not in _KEEPING:
            return None
        if size is None:
            continue
        if name == "numeric":
            if len(text.partition(".")[2]) > int(scale or 0):
                return None
        elif name != "character varying" or len(text) > int(size):
            return None
    return text


_Casts = list[tuple[str, str | None, str | None]]


def _operand(expression: str, at: int) -> tuple[str | None, _Casts, int]:
    """A literal or an operand in parentheses at ``at``, with the casts behind it: text, casts, end."""
    opening = _OPEN.match(expression, at)
    if opening:
        text, casts, at = _operand(expression, opening.end())
        closing = _CLOSE.match(expression, at)
        if text is None or closing is None:
            return None, [], at
        at = closing.end()
    else:
        literal = _LITERAL.match(expression, at)
        if literal is None:
            return None, [], at
        quoted = literal["text"]
        text = quoted.replace("''", "'") if quoted is not None else literal["word"] or literal["number"]
        casts, at = [], literal.end()
    while cast := _CAST.match(expression, at):
        casts.append((cast["name"] + cast["rest"], cast["size"], cast["scale"]))
        at = cast.end()
    return text, casts, at


def _scaled(text: str, scale: int) -> str:
    """Digits with zeros up to ``scale``: Postgres stores them so, the default expression does not show them."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.ljust(scale, '0')}" if scale else text
