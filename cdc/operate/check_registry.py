"""Whether the schema registry answers, and whether the embedded one can."""

from __future__ import annotations

from cdc.config import Config
from cdc.errors import Finding

__all__ = ["check_registry"]


def check_registry(config: Config) -> list[Finding]:
    """Findings about the registry that ``config`` names."""
    del config
    return []
