"""What a reader answers when a value does not fit its schema exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Inexact", "quoted"]


@dataclass(frozen=True, slots=True)
class Inexact:
    """A value that its schema cannot hold: ``fallback`` is written, ``text`` travels in the header ``cdc.text``.

    ``fallback`` is what Debezium writes; ``None`` where there is nothing to write: then null, or the zero of a NOT
    NULL column. ``text`` is Postgres's, exact, or where the schema's own texts are others (money, JSON of an hstore
    within an array) such a text.
    """

    fallback: Any
    text: str


def quoted(text: bytes) -> str:
    """``text`` for an error message: short, printable."""
    return repr(text[:60])[1:] + ("…" if len(text) > 60 else "")
