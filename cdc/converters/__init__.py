"""Converters: schemas registered and fetched, plans compiled."""
