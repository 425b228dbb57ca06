"""Fixtures for all tests. Those that need servers are in ``fix_servers.py``."""

pytest_plugins = ["fix_servers", "fix_dummies"]
