"""Logs: structlog and the standard library's loggers to stderr, one line an event, no secret in it.

Every line goes through one formatter, so that a library's own message and a traceback are redacted too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LogFormat", "choose_format", "configure_logging"]

LogFormat = Literal["console", "json"]

_FIRST: Final = ("timestamp", "level", "event", "connector", "task")
"""The keys that a JSON line begins with, if it has them."""

_CHATTY: Final = ("httpx2", "httpcore2", "asyncio")
"""Libraries whose information, a line for each request, is for debugging."""


def choose_format(stream: TextIO) -> LogFormat:
    """Lines for a person on a terminal, JSON for everything else."""
    return "console" if stream.isatty() else "json"


def configure_logging(
    level: str,
    log_format: LogFormat,
    redact: Callable[[str], str],
    *,
    stream: TextIO | None = None,
    **bound: str | int,
) -> None:
    """Send all logs of this process to ``stream`` (stderr), each line with what is ``bound`` (connector, task)."""

    def bind(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for key, value in bound.items():
            event.setdefault(key, value)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        bind,
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        plain = structlog.dev.plain_traceback
        final.append(structlog.dev.ConsoleRenderer(colors=_colors(stream), exception_formatter=plain))

    def redacted(logger: WrappedLogger, method: str, event: EventDict) -> str:
        rendered: Any = {key: event[key] for key in _FIRST if key in event} | dict(event)
        for processor in final:
            rendered = processor(logger, method, rendered)
        return redact(str(rendered))

    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[redacted]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # One line for each request to the registry: of use to those who debug it only.
    logging.getLogger("httpx2").setLevel(max(root.level, logging.WARNING) if level.upper() != "DEBUG" else "DEBUG")
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.NOTSET if level.upper() == "DEBUG" else logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _colors(stream: TextIO | None) -> bool:
    return (stream or sys.stderr).isatty()
