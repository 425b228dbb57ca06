"""What is secret in a configuration, and how it is kept out of everything that is shown.

A value is secret if it came out of a ``${…}`` reference (unless its property is an address), if its property's name
says so, if the plugin's model has a `pydantic.SecretStr` for it, or if it is the userinfo of a URL. Secrets are known
by value, so that a library's own error message or a traceback is cleaned as well.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["MASK", "Secrets", "is_address_key", "is_secret_key"]

MASK: Final = "***"

_SECRET_KEY: Final = re.compile(
    r"password|passwd|passphrase|secret|token|user\.?info|jaas|private|credential|api\.?key|access\.?key|ssl\.key\b",
    re.IGNORECASE,
)
_NOT_SECRET_KEY: Final = re.compile(
    r"\.(location|file|filename|path|url|uri|source|class|type|mechanism|format|provider|encoder\.\w+|ms|seconds|id)$",
    re.IGNORECASE,
)
_ADDRESS_KEY: Final = re.compile(r"(^|\.)(hostname|hosts?|dbname|user|bootstrap\.servers|listeners|ur[li])$")
_USERINFO: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://([^\s/?#@]*(?:@[^\s/?#@]*)*)@")
_ASSIGNED: Final = re.compile(r"""password\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s;&]+)""", re.IGNORECASE)
_SHORT: Final = 4
"""Shorter secrets are masked only where they stand alone: masking every ``5`` would hide the message."""


def is_secret_key(key: str) -> bool:
    """Whether a property's name says that its value is a secret (and not where to find one)."""
    return bool(_SECRET_KEY.search(key)) and not _NOT_SECRET_KEY.search(key)


def is_address_key(key: str) -> bool:
    """Whether a property says where something is: a message without it would help nobody."""
    return bool(_ADDRESS_KEY.search(key)) and not is_secret_key(key)


class Secrets:
    """The secret values of a configuration. `redact` puts a mask in their place in any text."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.add(value)

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)} values)"

    def values(self) -> list[str]:
        """The secrets themselves, for a child process to redact the same."""
        return sorted(self._values)

    def add(self, value: str) -> None:
        """Keep ``value``, and each secret part of it, out of what is shown."""
        parts = {value, *embedded(value)}
        user, colon, password = value.partition(":")
        if colon and not value.startswith(("/", "{")) and "://" not in value and "\n" not in value:
            parts |= {password, base64.b64encode(value.encode()).decode()} if user else {password}
        self._values |= {part for part in parts if part.strip()}
        self._pattern = None

    def add_embedded(self, value: str) -> None:
        """Of a value that is not secret as a whole, keep the passwords inside it."""
        self._values |= {part for part in embedded(value) if part.strip()}
        self._pattern = None

    def redact(self, text: str) -> str:
        """``text`` with every secret, and the userinfo of every URL, masked."""
        if self._values:
            if self._pattern is None:
                self._pattern = _compile(self._values)
            text = self._pattern.sub(MASK, text)
        return _USERINFO.sub(lambda match: match[0].replace(match[1] + "@", MASK + "@"), text)


def embedded(value: str) -> set[str]:
    """The passwords inside a value: of URLs, of JAAS configurations and of connection strings."""
    found: set[str] = set()
    for match in _USERINFO.finditer(value):
        userinfo = match[1]
        password = userinfo.partition(":")[2] or userinfo
        found |= {password, unquote(password)}
    for match in _ASSIGNED.finditer(value):
        found.add(match[1].strip("\"'"))
    return found


def _compile(values: Iterable[str]) -> re.Pattern[str]:
    forms: set[str] = set()
    for value in values:
        forms |= {value, json.dumps(value)[1:-1], repr(value)[1:-1]}
        # A file's escapes can name half of a character, which has no UTF-8.
        forms |= {quote(value, safe=safe, errors="surrogatepass") for safe in ("", "/")}
        # A long secret over several lines may be shown line by line (a traceback, a wrapped log).
        forms |= {line for line in value.splitlines() if len(line) >= _SHORT}
    longest_first = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(_form(form) for form in longest_first))


def _form(text: str) -> str:
    return re.escape(text) if len(text) >= _SHORT else rf"(?<![\w.]){re.escape(text)}(?![\w.])"
