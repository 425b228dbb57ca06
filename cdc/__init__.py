"""Keeps key-value stores in sync with Postgres through Kafka."""
