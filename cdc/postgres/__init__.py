"""The source connector: Postgres logical replication and snapshots."""
