"""Broken input for decoders: truncated, oversized, with lengths that lie, with bits that flipped; what they may do.

A decoder gives a value or its documented error. Never another exception, and never memory beyond a small multiple of
what it was given: that is how a length that lies shows.
"""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

__all__ = ["broken", "broken_text", "survives"]

_OWN_ROOM = 4 << 20
"""Bytes that decoding a small input may take, whatever it says."""
_TIMES = 200
"""How many times the size of its input a decoder may take."""

_LIES = [
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # Avro: the least long
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # Avro: the greatest long
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",  # a number without end
    b"\xfe\xff\xff\xff\x0f",
    b"\x00",
    b"\x01",
]


@st.composite
def broken(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """One of ``valid``, damaged; or bytes of nobody's making."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "flip", "lie", "insert", "repeat", "overwrite"])):
            case "cut":
                del data[at:]
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "lie":
                lie = draw(st.sampled_from(_LIES))
                data[at : at + (len(lie) if draw(st.booleans()) else 1)] = lie
            case "insert":
                data[at:at] = draw(st.binary(max_size=20))
            case "repeat":
                data[at:at] = bytes(data[: draw(st.integers(0, 64))]) * draw(st.integers(1, 50))
            case _:
                data[at : at + 4] = draw(st.binary(max_size=6))
    return bytes(data)


@st.composite
def broken_text(draw: st.DrawFn, valid: list[str]) -> str:
    """One of ``valid``, damaged where its words meet, or nested far beyond what anybody writes."""
    text = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        to = draw(st.integers(at, min(len(text), at + 30)))
        lies = ["null", "[]", "{}", '""', "1e999", "-1", "NaN", "Infinity", "true", "9" * 30, "0x10", "\x00", "\ud800"]
        lies += ["1e999999999", "1.234567890123456789012e-999999999", "9" * 20_000]
        lies += [
            "1" * 5000,
            "[" * 3000,
            "[" * 980 + "]" * 980,
            '{"a":' * 3000,
            '"\\ud800"',
            "!!python/object:os.system",
            "&a [*a, *a]",
        ]
        text = text[:at] + draw(st.sampled_from(lies) | st.text(max_size=10)) + text[to:]
    return text


@contextlib.contextmanager
def _measured(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < _OWN_ROOM + _TIMES * size, f"{peak} bytes were taken for an input of {size}"


def survives(decode: Callable[[Any], Any], data: bytes | str, *documented: type[Exception]) -> None:
    """``decode(data)`` gives a value or one of its documented errors, in bounded memory."""
    with _measured(len(data)), contextlib.suppress(*documented):
        decode(data)
