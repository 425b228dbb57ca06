"""The Redis sink: one hash per row, offsets in the same step."""
