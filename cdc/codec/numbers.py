"""Numbers in Postgres's text, as Debezium's schemas hold them.

All readers here are strict: Python's ``int`` and ``float`` take underscores and blanks, Postgres prints neither, so
such text is not a number (`ValueError`), never a wrong one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from cdc.codec.inexact import Inexact, quoted

__all__ = [
    "bits",
    "boolean",
    "decimal",
    "decimal_bytes",
    "float32",
    "float64",
    "integer",
    "money",
    "money_double",
    "money_text",
    "numeric_double",
    "numeric_text",
    "single_bit",
    "variable_decimal",
]

Reader = Callable[[bytes], Any]

_SPECIAL = {b"NaN": b"NAN", b"Infinity": b"POSITIVE_INFINITY", b"-Infinity": b"NEGATIVE_INFINITY"}
"""Values of numeric that no digits write, and Debezium's words for them in string mode."""
_FLOAT_WORDS = {b"NaN": float("nan"), b"Infinity": float("inf"), b"-Infinity": float("-inf")}
_UNLIMITED = 2**31 - 1
"""What Debezium's ``Bits`` says for a length that is not limited."""
_LONGEST_INT = 4000
"""Python refuses to read decimal integers longer than 4300 digits from text; Postgres's numeric has up to 131072."""


def boolean() -> Reader:
    """``t`` and ``f``."""

    def read(text: bytes) -> bool:
        if text == b"t":
            return True
        if text == b"f":
            return False
        raise ValueError(f"not a boolean: {quoted(text)}")

    return read


def integer(low: int, high: int) -> Reader:
    """Digits with an optional minus, within ``low … high``."""

    def read(text: bytes) -> int:
        value = _int(text)
        if low <= value <= high:
            return value
        raise ValueError(f"out of range {low} to {high}: {quoted(text)}")

    return read


def _int(text: bytes) -> int:
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit():
        raise ValueError(f"not an integer: {quoted(text)}")
    return int(text) if len(text) < _LONGEST_INT else int(Decimal(text.decode("ascii")))


def decimal_bytes(value: int) -> bytes:
    """Two's complement, big-endian, as short as can be: Java's ``BigInteger.toByteArray``."""
    return value.to_bytes((~value if value < 0 else value).bit_length() // 8 + 1, "big", signed=True)


def decimal(scale: int) -> Reader:
    """numeric(p, s) → unscaled bytes of a decimal of ``scale``. NaN, and a text of another scale, are inexact."""
    point = -scale - 1

    def read(text: bytes) -> bytes | Inexact:
        digits = text if not scale else text[:point] + text[-scale:] if text[point:-scale] == b"." else b""
        if digits.isdigit() or (digits[:1] == b"-" and digits[1:].isdigit()):
            return decimal_bytes(_int(digits))
        if text in _SPECIAL:
            return Inexact(None, text.decode())
        unscaled, own_scale = _unscaled(text)
        if own_scale > scale:
            return Inexact(None, text.decode())
        return Inexact(decimal_bytes(unscaled * 10 ** (scale - own_scale)), text.decode())

    return read


def _unscaled(text: bytes) -> tuple[int, int]:
    whole, point, fraction = text.partition(b".")
    if not whole[-1:].isdigit() or (point and not fraction.isdigit()):
        raise ValueError(f"not a number: {quoted(text)}")
    return _int(whole + fraction), len(fraction)


def variable_decimal() -> Reader:
    """numeric without precision → ``VariableScaleDecimal``. Debezium strips trailing zeros: then it is inexact."""

    def read(text: bytes) -> dict[str, Any] | Inexact:
        if text in _SPECIAL:
            return Inexact(None, text.decode())
        short = text.rstrip(b"0").removesuffix(b".") if b"." in text else text
        unscaled, scale = _unscaled(short)
        if short == text:
            return {"scale": scale, "value": decimal_bytes(unscaled)}
        _unscaled(text)
        return Inexact({"scale": scale, "value": decimal_bytes(unscaled)}, text.decode())

    return read


def numeric_text() -> Reader:
    """numeric as UTF-8 text. Debezium has words of its own for NaN and the infinities."""

    def read(text: bytes) -> bytes | Inexact:
        if text in _SPECIAL:
            return Inexact(_SPECIAL[text], text.decode())
        _unscaled(text)
        return text

    return read


def numeric_double() -> Reader:
    """numeric as a double: exact only where the double is printed as the very same text."""

    def read(text: bytes) -> float | Inexact:
        if text in _FLOAT_WORDS:
            return _FLOAT_WORDS[text]
        _unscaled(text)
        value = float(text)
        # From 1e15 on Postgres prints a double with an exponent; a numeric never has one.
        if abs(value) < 1e15 and repr(value).removesuffix(".0") == text.decode():
            return value
        return Inexact(value, text.decode())

    return read


def float64() -> Reader:
    """float8: with ``extra_float_digits`` 1 the text reads back as the same number."""

    def read(text: bytes) -> float:
        if text in _FLOAT_WORDS:
            return _FLOAT_WORDS[text]
        if text.translate(None, b"0123456789+-.e"):
            raise ValueError(f"not a floating point number: {quoted(text)}")
        value = float(text)
        if abs(value) == float("inf") or (value == 0 and text.strip(b"-0.")):
            raise ValueError(f"out of the range of a double: {quoted(text)}")
        return value

    return read


def float32() -> Reader:
    """float4, as the double of the same value."""
    double = float64()

    def read(text: bytes) -> float:
        value: float = double(text)
        try:
            packed = struct.pack("<f", value)
        except OverflowError:
            raise ValueError(f"out of the range of a real: {quoted(text)}") from None
        single: float = struct.unpack("<f", packed)[0]
        if single == value or text in _FLOAT_WORDS:
            return single
        if single == 0:
            raise ValueError(f"out of the range of a real: {quoted(text)}")
        return _nearest(packed, single, value, text)

    return read


def _nearest(packed: bytes, single: float, value: float, text: bytes) -> float:
    """The single nearest to ``text``, not to its double ``value``.

    They differ when the double lies midway between two singles and the text does not.
    """
    bits = int.from_bytes(packed, "little")
    step = 1 if abs(value) > abs(single) else -1
    other: float = struct.unpack("<f", ((bits + step) & 0xFFFFFFFF).to_bytes(4, "little"))[0]
    if value - single != other - value:
        return single
    exact = Fraction(text.decode())
    near, far = abs(exact - Fraction(single)), abs(exact - Fraction(other))
    return other if far < near else single


def _cents(text: bytes, fraction: int) -> int:
    """The number of smallest units in a money text of any locale whose currency has ``fraction`` decimals."""
    body = text.decode("utf-8")
    places = [at for at, char in enumerate(body) if "0" <= char <= "9"]
    if not places:
        raise ValueError(f"not an amount of money: {quoted(text)}")
    digits = "".join(body[at] for at in places)
    number = body[places[0] : places[-1] + 1]
    last_group = len(number) - max((at for at, char in enumerate(number) if not "0" <= char <= "9"), default=-1) - 1
    if fraction and (last_group != fraction or last_group == len(number)):
        raise ValueError(f"not an amount with {fraction} decimals (see money.fraction.digits): {quoted(text)}")
    if not fraction and last_group not in {3, len(number)}:
        raise ValueError(f"not an amount without decimals (see money.fraction.digits): {quoted(text)}")
    outside = body[: places[0]] + body[places[-1] + 1 :]
    return -int(digits) if "-" in outside or "(" in outside else int(digits)


def money(fraction: int) -> Reader:
    """money → unscaled bytes of a decimal with ``fraction`` decimals, whatever ``lc_monetary`` prints around it."""
    return lambda text: decimal_bytes(_cents(text, fraction))


def money_text(fraction: int) -> Reader:
    """money → UTF-8 digits with ``fraction`` decimals."""

    def read(text: bytes) -> bytes:
        cents = _cents(text, fraction)
        digits = b"%0*d" % (fraction + 1, abs(cents))
        sign = b"-" if cents < 0 else b""
        return sign + (digits[:-fraction] + b"." + digits[-fraction:] if fraction else digits)

    return read


def money_double(fraction: int) -> Reader:
    """money → double; exact where the double is printed with just the digits of the amount (see `numeric_double`)."""
    to_text, to_double = money_text(fraction), numeric_double()
    return lambda text: to_double(to_text(text))


def single_bit() -> Reader:
    """bit(1) and varbit(1) → boolean; varbit's empty string is neither."""

    def read(text: bytes) -> bool | Inexact:
        if text in {b"0", b"1"}:
            return text == b"1"
        if not text:
            return Inexact(None, "")
        raise ValueError(f"not one bit: {quoted(text)}")

    return read


def bits(length: int, varying: bool) -> Reader:
    """A bit string → little-endian bytes cut at the highest set bit, as Debezium's ``Bits``.

    A reader has only ``length`` to know the zeros before it, and cannot tell varying strings from fixed ones: a text
    shorter than ``length`` is inexact, or of no limited length (2**31 - 1) one that begins with a zero.
    """

    def read(text: bytes) -> bytes | Inexact:
        if text.translate(None, b"01"):
            raise ValueError(f"not a bit string: {quoted(text)}")
        number = int(text or b"0", 2)
        value = number.to_bytes((number.bit_length() + 7) // 8, "little")
        if len(text) > length or (not varying and len(text) != length):
            raise ValueError(f"not a bit string of length {length}: {quoted(text)}")
        exact = text[:1] != b"0" if length == _UNLIMITED else len(text) == length
        return value if exact else Inexact(value, text.decode())

    return read
