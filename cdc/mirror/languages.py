"""The sets of keys that templates can make, and whether two of them have a key in common.

A language is a sequence of literals and holes. Two languages are intersected as automata over the few bytes that
make a difference, so that the answer is exact and comes with the shortest key that both can make.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final

__all__ = ["Hole", "Language", "overlap"]


class Hole(Enum):
    """What may stand where a template has a column."""

    ANY = "any"
    """Any bytes: a lone key column, written as it is."""
    ESCAPED = "escaped"
    """Any bytes with ``:`` and ``\\`` behind a backslash: one of several key columns."""
    DIGITS = "digits"
    """An integer, in either place."""


Language = tuple[bytes | Hole, ...]

_DIGITS: Final = b"0123456789"
_State = tuple[int, int]
"""Index of a part, and how far inside it."""


class _Automaton:
    """A language without memory: states and what each byte leads to. The state behind the last part accepts."""

    def __init__(self, language: Language) -> None:
        self._parts = [part for part in language if part != b""]

    def start(self) -> frozenset[_State]:
        return self._settle((0, 0))

    def accepts(self, states: frozenset[_State]) -> bool:
        return (len(self._parts), 0) in states

    def step(self, states: frozenset[_State], byte: int) -> frozenset[_State]:
        return frozenset(state for at in states for target in self._targets(at, byte) for state in self._settle(target))

    def _settle(self, state: _State) -> frozenset[_State]:
        """The state, and those behind it that take no byte to reach."""
        part, inside = state
        found = {state}
        while part < len(self._parts) and inside == 0 and self._parts[part] in (Hole.ANY, Hole.ESCAPED):
            part += 1
            found.add((part, 0))
        return frozenset(found)

    def _targets(self, state: _State, byte: int) -> Iterator[_State]:
        index, inside = state
        if index == len(self._parts):
            return
        part = self._parts[index]
        if isinstance(part, bytes):
            if part[inside] == byte:
                yield (index, inside + 1) if inside + 1 < len(part) else (index + 1, 0)
        elif part is Hole.ANY:
            yield index, 0
        elif part is Hole.ESCAPED:
            if inside == 1:  # behind a backslash
                if byte in b":\\":
                    yield index, 0
            elif byte == 0x5C:
                yield index, 1
            elif byte != 0x3A:
                yield index, 0
        elif byte in _DIGITS:  # an optional sign, then one digit or more
            yield index, 2
            yield index + 1, 0
        elif byte == 0x2D and inside == 0:
            yield index, 1


def overlap(one: Language, other: Language) -> bytes | None:
    """The shortest key that both languages have, or ``None`` when they have none in common."""
    left, right = _Automaton(one), _Automaton(other)
    alphabet = _alphabet(one, other)
    begin = (left.start(), right.start())
    seen = {begin}
    queue = deque([(*begin, b"")])
    while queue:
        here, there, key = queue.popleft()
        if left.accepts(here) and right.accepts(there):
            return key
        for byte in alphabet:
            pair = (left.step(here, byte), right.step(there, byte))
            if pair[0] and pair[1] and pair not in seen:
                seen.add(pair)
                queue.append((*pair, key + bytes([byte])))
    return None


def _alphabet(*languages: Language) -> bytes:
    """The bytes that any of the languages tells apart, and one for all the rest."""
    named = {byte for language in languages for part in language if isinstance(part, bytes) for byte in part}
    named |= set(b":\\-")
    digit = next((byte for byte in _DIGITS if byte not in named), None)
    others = (byte for byte in (*b"abcdefghijklmnopqrstuvwxyz", *range(256)) if byte not in _DIGITS)
    rest = next((byte for byte in others if byte not in named), None)
    return bytes(sorted(named | {byte for byte in (digit, rest) if byte is not None}))
