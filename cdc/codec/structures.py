"""Points, vectors, geometries, hstore and composites: from Postgres's text to what Debezium's schemas hold."""

from __future__ import annotations

import binascii
import math
import re
import struct
from array import array
from collections.abc import Callable
from typing import Any, Final

from cdc.codec.canonical import CanonicalType, from_postgres, json_string
from cdc.codec.canonical_floats import float4_text, float8_text
from cdc.codec.canonical_scalars import char_text
from cdc.codec.inexact import Inexact, quoted
from cdc.codec.literals import hstore_pairs
from cdc.codec.numbers import float32, float64

__all__ = [
    "composite",
    "geometry",
    "hstore_json",
    "hstore_map",
    "internal_char",
    "point",
    "single_text",
    "sparse_vector",
    "vector",
]

Reader = Callable[[bytes], Any]

_POINT: Final = re.compile(rb"\(([^,()]+),([^,()]+)\)")
_WKB_POINT: Final = struct.Struct("<BIdd")
_HAS_SRID: Final = 0x20000000
_SPARSE: Final = re.compile(rb"\{((?:\d+:[0-9+\-.e]+(?:,(?=\d)|(?=\})))*)\}/(\d+)")
_INT16: Final = 2**15 - 1


def internal_char() -> Reader:
    """``"char"``: one byte, which need not be UTF-8 (see `char_text`)."""

    def read(text: bytes) -> bytes:
        shown = char_text(text)
        shown.decode("utf-8")
        return shown

    return read


def point() -> Reader:
    """point → Debezium's ``Point``: coordinates, and the same as well-known binary."""
    number = float64()

    def read(text: bytes) -> dict[str, Any]:
        match = _POINT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a point: {quoted(text)}")
        x, y = number(match[1]), number(match[2])
        return {"x": x, "y": y, "wkb": _WKB_POINT.pack(1, 1, x, y), "srid": None}

    return read


def geometry() -> Reader:
    """PostGIS's geometry and geography, printed as EWKB in upper-case hex → Debezium's ``Geometry``: the same bytes
    and their SRID."""

    def read(text: bytes) -> dict[str, Any]:
        try:
            wkb = binascii.unhexlify(text)
            (kind,) = struct.unpack_from("<I" if wkb[0] else ">I", wkb, 1)
            srid = struct.unpack_from("<i" if wkb[0] else ">i", wkb, 5)[0] if kind & _HAS_SRID else None
        except (binascii.Error, struct.error, IndexError):
            raise ValueError(f"not a geometry in hexadecimal EWKB: {quoted(text)}") from None
        value = {"wkb": wkb, "srid": srid}
        return value if text.isupper() or text.isdigit() else _not_upper(text)

    return read


def _not_upper(text: bytes) -> dict[str, Any]:
    raise ValueError(f"not a geometry in upper-case hexadecimal: {quoted(text)}")


def single_text(value: float) -> bytes:
    """A double that stands for a single (pgvector's elements), as Postgres prints the single; any other double as
    Postgres prints that."""
    try:
        single: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float8_text(value)
    text = float4_text(single)
    return text if float(text) == value or math.isnan(value) else float8_text(value)


def vector(width: int) -> Reader:
    """pgvector's vector (``width`` 64, doubles) and halfvec (32, singles), ``[1,2.5]`` → list of numbers."""
    to_single = float32()

    def read(text: bytes) -> list[float] | Inexact:
        if text[:1] != b"[" or text[-1:] != b"]":
            raise ValueError(f"not a vector: {quoted(text)}")
        items = text[1:-1].split(b",")
        values = _doubles(items, text)
        if width == 32:
            return [to_single(item) for item in items] if _doubtful(values) else array("f", values).tolist()
        return values if _exact(values, items) else Inexact(values, text.decode())

    return read


def _doubles(items: list[bytes], text: bytes) -> list[float]:
    if b"".join(items).translate(None, b"0123456789+-.e"):
        raise ValueError(f"not a vector: {quoted(text)}")
    return [float(item) for item in items]


def _doubtful(values: list[float]) -> bool:
    """Whether rounding one of these doubles to a single may give another single than its text means: a double that
    lies midway between two singles, or one so small that singles have fewer bits there."""
    bits = array("Q", array("d", values).tobytes())
    return any(number & 0x1FFFFFFF == 0x10000000 or 0 < number & (2**63 - 1) < 0x381 << 52 for number in bits)


def _exact(values: list[float], items: list[bytes]) -> bool:
    """Whether `single_text` gives the items back."""
    if not _doubtful(values):
        return True
    return all(single_text(value) == item for value, item in zip(values, items, strict=True))


def sparse_vector() -> Reader:
    """pgvector's sparsevec, ``{1:1.5,3:2}/5`` → Debezium's ``SparseDoubleVector``, which has room for 32767 dimensions:
    inexact with more."""

    def read(text: bytes) -> dict[str, Any] | Inexact:
        match = _SPARSE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a sparsevec: {quoted(text)}")
        pairs = [pair.split(b":") for pair in match[1].split(b",")] if match[1] else []
        items = [item for _, item in pairs]
        values = _doubles(items, text)
        dimensions = int(match[2])
        if dimensions > _INT16:
            return Inexact(None, text.decode())
        value = {
            "dimensions": dimensions,
            "vector": dict(zip((int(index) for index, _ in pairs), values, strict=True)),
        }
        return value if _exact(values, items) else Inexact(value, text.decode())

    return read


def hstore_json() -> Reader:
    """hstore → JSON object, in the order in which Postgres prints the keys."""

    def read(text: bytes) -> bytes:
        text.decode("utf-8")
        return from_postgres("hstore", text) or b""

    return read


def hstore_map() -> Reader:
    """hstore → dict."""

    def read(text: bytes) -> dict[str, str | None]:
        return {
            key.decode("utf-8"): None if value is None else value.decode("utf-8") for key, value in hstore_pairs(text)
        }

    return read


def composite(type_: CanonicalType) -> Reader:
    """A composite, or an array of composites, → its canonical text, which is JSON.

    Inexact (Postgres's text as a JSON string) where JSON cannot say it: an array whose lower bounds are not 1, a value
    of another version of the type.
    """

    def read(text: bytes) -> bytes | Inexact:
        try:
            shown = from_postgres(type_, text) if text[:1] != b"[" else None
        except ValueError:
            shown = None
        if shown is None:
            exact = text.decode("utf-8")
            return Inexact(json_string(text).encode("utf-8"), exact)
        shown.decode("utf-8")
        return shown

    return read
