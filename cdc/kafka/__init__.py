"""Thin shells around librdkafka."""
