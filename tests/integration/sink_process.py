"""The process of `sink_feed.SinkProcess`: one line of JSON on stdin is the order, the end of stdin the stop."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from typing import Any

from cdc.observe.logging import configure_logging
from cdc.plugin import TaskContext
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector
from cdc.runtime.sink_task import run_sink_task


def die_at(moment: str, place: str, number: int) -> None:
    """Have this process killed before or after the ``number``-th call of a method."""
    module, _, name = place.partition(":")
    owner_name, _, method = name.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    real = getattr(owner, method)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if moment == "before" and calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*args, **kwargs)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, method, deadly)


def main() -> None:
    order = json.loads(sys.stdin.readline())
    if order["die"]:
        die_at(*order["die"])
    stopping = threading.Event()

    def follow() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=follow, daemon=True).start()

    def report(name: str, value: Any) -> None:
        os.write(1, json.dumps([name, value]).encode() + b"\n")

    configure_logging("info", "console", lambda text: text)
    connector = RedisSinkConnector(RedisConfig.model_validate(order["settings"]))
    context = TaskContext(connector.config.name, order["task"], "test", report, stopping.is_set)
    run_sink_task(connector, context, order["worker"])


if __name__ == "__main__":
    main()
