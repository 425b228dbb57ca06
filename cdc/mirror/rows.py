"""Rows that are not just what their value says: header columns, columns not known, rows without values."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence, Set

from cdc.codec.canonical import ArrayOf, CanonicalType, from_postgres, json_string, typed
from cdc.codec.canonical_values import date_text
from cdc.errors import DataError
from cdc.mirror.fold import PATCH, Op
from cdc.record import HEADER_TEXT, HEADER_UNKNOWN

__all__ = ["exactly", "keyed", "patch", "placeholders", "unavailable"]


def exactly(
    fields: list[bytes], nulls: tuple[bytes, ...], header: bytes, kinds: Mapping[bytes, str]
) -> tuple[list[bytes], tuple[bytes, ...]]:
    """The row with the values that its schema could not hold, from the header ``cdc.text``; JSON null is NULL."""
    try:
        texts = {name.encode(): None if text is None else text.encode() for name, text in json.loads(header).items()}
        exact = {name: from_postgres(_as_told(kinds[name]), text) for name, text in texts.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"the header {HEADER_TEXT} does not fit the row: {error!r}") from error
    row = dict(_pairs(fields))
    row.update((name, text) for name, text in exact.items() if text is not None)
    absent = [name for name, text in exact.items() if text is None]
    for name in absent:
        row.pop(name, None)
    return [part for pair in row.items() for part in pair], (*(name for name in nulls if name not in row), *absent)


def _as_told(kind: str) -> CanonicalType:
    """The type of a text in the header: it has commas between elements, whatever the type's own delimiter is."""
    type_ = typed(kind)
    return ArrayOf(type_.element) if isinstance(type_, ArrayOf) else type_


def patch(op: Op, header: bytes) -> Op:
    """The change of a row of which some columns are not known, named in the header ``cdc.unknown``: those are left
    alone."""
    try:
        unknown = {name.encode() for name in json.loads(header)}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"the header {HEADER_UNKNOWN} is no list of columns: {header[:80]!r}") from error
    fields = [part for pair in _pairs(op[1]) if pair[0] not in unknown for part in pair]
    return PATCH, fields, tuple(name for name in op[2] if name not in unknown), op[3], op[4]


def placeholders(setting: str) -> frozenset[bytes]:
    """The canonical texts under which Debezium's ``unavailable.value.placeholder`` arrives, for every type that it
    writes it in: text kinds, bytea in every form, arrays of them, hstore, and the bytes' numbers in arrays of integers
    and dates. ``setting`` is as in Debezium (``hex:`` and hexadecimal digits for bytes); empty for none.

    `ValueError` for hexadecimal digits that are none.
    """
    if not setting:
        return frozenset()
    prefix, _, digits = setting.partition("hex:")
    content = bytes.fromhex(digits) if digits and not prefix else setting.encode()
    single = [content, b64encode(content), urlsafe_b64encode(content), content.hex().encode()]
    quoted = [json_string(text) for text in single]
    days = ",".join(json_string(date_text(byte)) for byte in content)
    nested = [*(f"[{text}]" for text in quoted), "{" + f"{quoted[0]}:{quoted[0]}" + "}", f"[{days}]"]
    nested.append(f"[{','.join(map(str, content))}]")
    return frozenset(single) | {text.encode("utf-8", "surrogateescape") for text in nested}


def unavailable(op: Op, texts: Set[bytes]) -> Op:
    """The change of a row some of whose columns are said to be unavailable: those are left alone."""
    fields = [part for pair in _pairs(op[1]) if pair[1] not in texts for part in pair]
    return PATCH, fields, op[2], op[3], op[4]


def keyed(op: Op, names: Sequence[str], parts: Sequence[bytes | None]) -> Op:
    """A row without any value still exists: its key columns are its fields."""
    key = {name.encode(): value for name, value in zip(names, parts, strict=True) if value is not None}
    fields = [part for pair in key.items() for part in pair]
    return op[0], fields, tuple(name for name in op[2] if name not in key), op[3], op[4]


def _pairs(fields: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(fields[::2], fields[1::2], strict=True)
