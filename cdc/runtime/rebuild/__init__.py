"""The rows of a store made again from the topics, in place, while the sink goes on (EXACTNESS.md H24)."""

from __future__ import annotations

from cdc.runtime.rebuild.job import Progress, Rebuild, Rebuilt

__all__ = ["Progress", "Rebuild", "Rebuilt"]
