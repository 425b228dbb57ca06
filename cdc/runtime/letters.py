"""Dead letters: a record at fault as it lies in its queue, with its own bytes, and what headers say about it. No I/O.

Every letter has the header `HEADER_LETTER`, which `cdc dlq` goes by, and with
``errors.deadletterqueue.context.headers.enable`` Kafka Connect's, all of them text. A receipt is a record with the
header `HEADER_RECEIPT` alone: it says that letters of these coordinates were replayed.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "CONTEXT",
    "HEADER_LETTER",
    "HEADER_RECEIPT",
    "Cause",
    "Headers",
    "Letter",
    "class_name",
    "letter_headers",
    "made",
    "parse_letter",
    "parse_receipt",
    "receipt_header",
]

HEADER_LETTER: Final = "cdc.letter"
HEADER_RECEIPT: Final = "cdc.letter.done"
CONTEXT: Final = "__connect.errors."
_MOST_TEXT: Final = 2000
"""Characters of a message that a header holds, and four times as many of a trace."""

Headers = list[tuple[str, "str | bytes | None"]]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a record was put aside: at which of Connect's stages, in which class, by which error."""

    stage: str
    executing: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.stage}: {self.error}"


@dataclass(frozen=True, slots=True)
class Letter:
    """What a letter's headers tell. ``offset`` is -1 for a source's record, which was in no topic yet.

    ``at`` is when it was put aside, in ms since 1970, -1 if the letter does not say. ``size`` is that of the value if
    it was left out, as too large for the queue.
    """

    connector: str
    task: int
    topic: str
    partition: int
    offset: int
    stage: str
    error: str
    message: str
    at: int = -1
    size: int = -1
    position: str = ""
    form: str = ""
    """``json`` for a source's record, written by the JSON converter with its schema; ``text`` for one whose values have
    no other form than Postgres's; empty for bytes as they were."""

    @property
    def coordinates(self) -> tuple[str, int, int, str]:
        """What letters of one record have in common: the queue may hold it more than once."""
        return self.topic, self.partition, self.offset, self.position


def class_name(thing: object) -> str:
    """The full name of a class, or of an object's."""
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def letter_headers(letter: Letter, cause: Cause, *, context: bool) -> Headers:
    """The headers that a letter gets behind the record's own; ``context`` is whether Connect's are wanted."""
    told: dict[str, Any] = {
        "v": 1,
        "connector": letter.connector,
        "task": letter.task,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "stage": letter.stage,
        "error": letter.error,
        "message": letter.message[:_MOST_TEXT],
        "at": letter.at,
    }
    told |= {
        name: value
        for name, value, nothing in (
            ("size", letter.size, -1),
            ("position", letter.position, ""),
            ("form", letter.form, ""),
        )
        if value != nothing
    }
    headers: Headers = [(HEADER_LETTER, json.dumps(told, separators=(",", ":")).encode())]
    if context:
        trace = "".join(traceback.format_exception(cause.error))
        values = {
            "topic": letter.topic,
            "partition": None if letter.partition < 0 else str(letter.partition),
            "offset": None if letter.offset < 0 else str(letter.offset),
            "connector.name": letter.connector,
            "task.id": str(letter.task),
            "stage": letter.stage,
            "class.name": cause.executing,
            "exception.class.name": letter.error,
            "exception.message": letter.message[:_MOST_TEXT],
            "exception.stacktrace": trace[-4 * _MOST_TEXT :],
        }
        headers += [(CONTEXT + name, None if text is None else text.encode()) for name, text in values.items()]
    return headers


def made(
    cause: Cause,
    connector: str,
    task: int,
    topic: str,
    partition: int = -1,
    offset: int = -1,
    *,
    position: str = "",
    form: str = "",
) -> Letter:
    """A letter of now."""
    return Letter(
        connector,
        task,
        topic,
        partition,
        offset,
        cause.stage,
        class_name(cause.error),
        str(cause.error),
        int(time.time() * 1000),
        position=position,
        form=form,
    )


def parse_letter(headers: Sequence[tuple[str, bytes | None]] | None) -> Letter | None:
    """What the headers of a record of a queue tell: ours, else those of Kafka Connect; ``None`` without either."""
    found = {name: value or b"" for name, value in headers or ()}
    own = found.get(HEADER_LETTER)
    if own is not None:
        return _own(own)
    if CONTEXT + "topic" not in found:
        return None
    return _connects(found)


def _own(header: bytes) -> Letter | None:
    try:
        told = json.loads(header)
        return Letter(
            str(told["connector"]),
            int(told["task"]),
            str(told["topic"]),
            int(told["partition"]),
            int(told["offset"]),
            str(told["stage"]),
            str(told["error"]),
            str(told["message"]),
            int(told["at"]),
            int(told.get("size", -1)),
            str(told.get("position", "")),
            str(told.get("form", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _connects(found: Mapping[str, bytes]) -> Letter:
    def text(name: str) -> str:
        return found.get(CONTEXT + name, b"").decode(errors="replace")

    def number(name: str) -> int:
        digits = text(name)
        return int(digits) if digits.isascii() and digits.isdigit() else -1

    return Letter(
        text("connector.name"),
        number("task.id"),
        text("topic"),
        number("partition"),
        number("offset"),
        text("stage"),
        text("exception.class.name"),
        text("exception.message"),
    )


def receipt_header(letter: Letter) -> tuple[str, bytes]:
    """The header of a receipt: this record needs no replay any more."""
    return HEADER_RECEIPT, json.dumps(letter.coordinates, separators=(",", ":")).encode()


def parse_receipt(headers: Sequence[tuple[str, bytes | None]] | None) -> tuple[str, int, int, str] | None:
    """The coordinates that a receipt is about; ``None`` if this is none."""
    for name, value in headers or ():
        if name == HEADER_RECEIPT:
            try:
                topic, partition, offset, position = json.loads(value or b"")
                return str(topic), int(partition), int(offset), str(position)
            except (ValueError, TypeError, OverflowError, RecursionError):
                return None
    return None
