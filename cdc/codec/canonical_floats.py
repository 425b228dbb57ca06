"""Floating point numbers as Postgres prints them.

Postgres and Python both print the shortest text that reads back as the same number; they differ in layout
(exponents start at other sizes) and in the rare texts that lie exactly between two numbers, which Python accepts
when a tie would round the right way and Postgres never does.
"""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from typing import Final

__all__ = ["float4_text", "float8_text"]


def float8_text(value: float) -> bytes:
    """As Postgres prints a float8: exponents from 1e+15 on and below 1e-4."""
    text = repr(value)
    if text in _SPECIAL:
        return _SPECIAL[text]
    size = abs(value)
    if size < 1e15 and "e" not in text:
        return text.removesuffix(".0").encode()
    if 2.0**53 <= size < 1e41:
        text = ("-" if value < 0 else "") + _inside_bounds(size, text.lstrip("-"))
    return _layout(text, 15)


def float4_text(value: float) -> bytes:
    """As Postgres prints a float4, of which ``value`` is the exact double: exponents from 1e+6 on and below 1e-4."""
    text = repr(value)
    if text in _SPECIAL:
        return _SPECIAL[text]
    if value == 0:
        return b"-0" if text[0] == "-" else b"0"
    return _layout(_shortest_float4(value), 6)


_SPECIAL: Final = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}
_float4: Final = struct.Struct("<f")


def _inside_bounds(value: float, text: str) -> str:
    """Python's shortest text may be a number exactly between two doubles, where a tie rounds to ``value``; Postgres
    takes only numbers nearer to ``value`` than to any other double. Halfway texts exist from 2**53 on."""
    exact = int(value)
    printed = _integer(text)
    below, above = exact - _ulp_below(exact), exact + _ulp_above(exact)
    if printed * 2 not in (exact + below, exact + above):
        return text
    for digits in range(len(_digits(text)), 18):
        # the nearest text of so many digits that is not halfway; 17 digits always are enough
        candidate = f"{value:.{digits - 1}e}"
        if exact + below < _integer(candidate) * 2 < exact + above:
            return candidate
    return f"{value:.16e}"


def _ulp_above(exact: int) -> int:
    return 1 << exact.bit_length() - 53


def _ulp_below(exact: int) -> int:
    return 1 << (exact - 1).bit_length() - 53


def _integer(text: str) -> int:
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent or 0) - len(fraction)
    digits = int(whole + fraction)
    return digits * int(10**shift) if shift >= 0 else digits // int(10**-shift)


def _digits(text: str) -> str:
    mantissa = text.partition("e")[0].lstrip("-").replace(".", "")
    return mantissa.lstrip("0").rstrip("0") or "0"


def _shortest_float4(value: float) -> str:
    bits = int.from_bytes(_float4.pack(value), "little") & 0x7FFFFFFF
    exact = abs(value)
    below = _float4.unpack((bits - 1).to_bytes(4, "little"))[0]
    above = _float4.unpack((bits + 1).to_bytes(4, "little"))[0] if bits + 1 < 0x7F800000 else 2.0**128
    low, high = (exact + below) / 2, (exact + above) / 2  # exact: doubles have room for one more bit
    sign = "-" if value < 0 else ""
    for digits in range(1 if exact < 2.0**-126 else 6, 10):
        text = f"{exact:.{digits - 1}e}"
        if low < float(text) < high:
            return sign + text
        if bits & 0x7FFFFF == 0:  # a power of two: there is twice as much room above it as below
            text = str(Decimal(text).next_plus(Context(prec=digits)))
            if float(text) < high:
                return sign + text.lower()
    return f"{value:.8e}"


def _layout(text: str, limit: int) -> bytes:
    """``text`` as Postgres lays out a number: an exponent of two digits or more below -4 and from ``limit`` on."""
    sign = "-" if text[0] == "-" else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    power = int(exponent or 0) + len(whole) - 1
    stripped = digits.lstrip("0")
    power -= len(digits) - len(stripped)
    digits = stripped.rstrip("0") or "0"
    if power < -4 or power >= limit:
        tail = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if power < 0 else '+'}{abs(power):02d}".encode()
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}".encode()
    digits = digits.ljust(power + 1, "0")
    tail = "." + digits[power + 1 :] if len(digits) > power + 1 else ""
    return f"{sign}{digits[: power + 1]}{tail}".encode()
