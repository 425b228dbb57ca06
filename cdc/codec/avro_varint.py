"""Readers of Avro's numbers, lengths and block counts at a place in a buffer.

Every reader takes ``(buf, p)`` and returns the value and the place behind it. `ValueError` or `IndexError` for bytes
that are none.
"""

from __future__ import annotations

__all__ = ["read_block", "read_length", "read_long"]


def read_long(buf: bytes, p: int) -> tuple[int, int]:
    """A zigzag varint of up to 64 bits. Unrolled: it is the slowest step of a row."""
    b = buf[p]
    if b < 128:
        return (b >> 1) ^ -(b & 1), p + 1
    n = b & 127
    b = buf[p + 1]
    if b < 128:
        n |= b << 7
        return (n >> 1) ^ -(n & 1), p + 2
    n |= (b & 127) << 7
    b = buf[p + 2]
    if b < 128:
        n |= b << 14
        return (n >> 1) ^ -(n & 1), p + 3
    n |= (b & 127) << 14
    b = buf[p + 3]
    if b < 128:
        n |= b << 21
        return (n >> 1) ^ -(n & 1), p + 4
    n |= (b & 127) << 21
    b = buf[p + 4]
    if b < 128:
        n |= b << 28
        return (n >> 1) ^ -(n & 1), p + 5
    n |= (b & 127) << 28
    b = buf[p + 5]
    if b < 128:
        n |= b << 35
        return (n >> 1) ^ -(n & 1), p + 6
    n |= (b & 127) << 35
    b = buf[p + 6]
    if b < 128:
        n |= b << 42
        return (n >> 1) ^ -(n & 1), p + 7
    n |= (b & 127) << 42
    b = buf[p + 7]
    if b < 128:
        n |= b << 49
        return (n >> 1) ^ -(n & 1), p + 8
    n |= (b & 127) << 49
    b = buf[p + 8]
    if b < 128:
        n |= b << 56
        return (n >> 1) ^ -(n & 1), p + 9
    n |= (b & 127) << 56
    b = buf[p + 9]
    if b > 1:
        raise ValueError("a number of more than 64 bits")
    n |= b << 63
    return (n >> 1) ^ -(n & 1), p + 10


def read_length(buf: bytes, p: int) -> tuple[int, int]:
    """The length of a text or of bytes, all of which must be there."""
    n, p = read_long(buf, p)
    if n < 0 or n > len(buf) - p:
        raise ValueError(f"a length of {n} with {len(buf) - p} bytes left")
    return n, p


def read_block(buf: bytes, p: int) -> tuple[int, int]:
    """How many items the next block of an array or map has; 0 at its end."""
    n, p = read_long(buf, p)
    if n < 0:
        n = -n
        _, p = read_long(buf, p)
    if n > len(buf) - p:
        raise ValueError(f"{n} items in {len(buf) - p} bytes")
    return n, p
