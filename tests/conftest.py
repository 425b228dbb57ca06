"""Fixtures for all tests. Those that need servers are in ``fix_servers.py``."""

import os
import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["leaks", "fix_servers", "fix_dummies", "fix_secure"]

# A shell starts what runs in its background with SIGINT ignored, and so would every process of these tests be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("cdc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("cdc"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "cdc")
