"""The errors of ``cdc``, by what the caller should do about them.

::

    CdcError
     ├── ConfigError       a setting is wrong: nothing was started, exit status 2
     ├── RetriableError    a part is away or busy: wait with backoff, nothing is lost
     ├── FatalError        an operator must act: stop and say so
     │    ├── GapError     ... changes were not told and cannot be had any more
     │    └── TableError   ... for one table; the others can go on
     │         ├── KeyChanged
     │         └── SchemaRefused
     └── DataError         this one record is at fault: dead letter or stop, by policy

The classes follow the error classes of Kafka Connect (retriable, fatal, per record), because what
differs between them is not where they come from but who can mend them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CdcError",
    "ConfigError",
    "DataError",
    "FatalError",
    "Finding",
    "GapError",
    "KeyChanged",
    "RetriableError",
    "SchemaRefused",
    "TableError",
    "brief",
]


class CdcError(Exception):
    """Base of all errors raised on purpose by this package."""


class RetriableError(CdcError):
    """A part is unreachable or busy. Waiting may help and loses nothing."""


class FatalError(CdcError):
    """Only an operator can mend this. The message names what was found and the remedy."""


class GapError(FatalError):
    """Changes were not told and cannot be had any more. Only reading all rows again makes things right."""


class TableError(FatalError):
    """The rows of one table cannot be written as they are now. Other tables are not touched by it."""


class KeyChanged(TableError):
    """The columns or types of a table's record key changed: its rows would get new keys beside the old."""


class SchemaRefused(TableError):
    """The registry refuses the table's new value schema as incompatible with those before it."""


class DataError(CdcError):
    """One record cannot be converted, mapped or written, whatever is waited for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a configuration or with a server that it names.

    ``key`` is the full setting (``connectors.shop.slot.name``), ``where`` its place
    (``bridge.yaml:12``), ``remedy`` the statement or setting that mends it.
    """

    message: str
    key: str = ""
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.key) if part)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}. {self.remedy}" if self.remedy else text


class ConfigError(CdcError):
    """The configuration is not valid. ``findings`` has one entry for each fault, in file order."""

    def __init__(self, findings: Sequence[Finding] | str) -> None:
        self.findings = [Finding(findings)] if isinstance(findings, str) else list(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


def brief(value: object, most: int = 60) -> str:
    """What a message says of a value from outside: its beginning as Python writes it. Never raises.

    `repr` does: for numbers of very many digits, for nesting without end.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError) as error:
        return f"a {type(value).__name__} that cannot be shown ({error})"
    return text if len(text) <= most else f"{text[:most]}…"
