"""``cdc dlq``: the dead letters of a connector, listed, shown and replayed."""

from __future__ import annotations

from cdc.operate.dlq.listing import list_letters, render_list
from cdc.operate.dlq.replaying import Report, render_replay, replay
from cdc.operate.dlq.showing import render_letter, show_letter

__all__ = ["Report", "list_letters", "render_letter", "render_list", "render_replay", "replay", "show_letter"]
