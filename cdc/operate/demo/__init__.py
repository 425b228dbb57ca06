"""``cdc demo``: a shop in Postgres, mirrored while it is used, and the proof that both ends are equal."""
