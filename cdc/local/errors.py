"""What can go wrong when servers are started on this machine."""

from __future__ import annotations

from cdc.errors import CdcError

__all__ = ["LocalServerError", "MissingPart"]


class MissingPart(CdcError):
    """Something needed to start a server is not installed. ``remedy`` is the command that installs it."""

    def __init__(self, part: str, remedy: str, found: str = "") -> None:
        self.part = part
        self.remedy = remedy
        self.found = found
        detail = f" ({found})" if found else ""
        super().__init__(f"{part} is not installed{detail}. Install it with: {remedy}")


class LocalServerError(CdcError):
    """A local server did not start, did not stop, or is not the one its records name."""
