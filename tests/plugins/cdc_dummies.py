"""Connectors without servers, to test what runs them. Found through the `dist-info` folder beside this file.

As a program it is a task's process with runners for them, in place of those that need Kafka.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import structlog
from pydantic import Field, SecretStr

from cdc.errors import ConfigError, FatalError, Finding, RetriableError
from cdc.plugin import (
    Connector,
    ConnectorConfig,
    Converter,
    Encoder,
    KeyEncoder,
    KeyMemory,
    SinkConnector,
    SourceConnector,
    SourceTask,
    TaskContext,
    ValueEncoder,
)
from cdc.record import RowShape, Schema


class SleeperConfig(ConnectorConfig):
    """Settings of a source that waits until it is asked to stop."""

    database_hostname: str = Field(default="localhost", description="A host.")
    database_port: int = Field(default=5432, ge=1, le=65535, description="A port.")
    database_password: SecretStr = Field(default=SecretStr(""), description="A secret.")
    table_include_list: str = Field(default="", description="A list.")
    snapshot_mode: Literal["initial", "no_data"] = Field(default="initial", description="A choice.")
    tombstones_on_delete: bool = Field(default=True, description="A flag.")
    slot_name: str = Field(default="", pattern=r"^[a-z0-9_]*$", description="A name that siblings must not share.")
    behaviour: str = Field(default="", description="What the task does.")
    uri: str = Field(default="", description="A URL.")
    topic_prefix: str = Field(default="", description="Topics that it would write.")
    topics: str = Field(default="", description="Topics that it would read.")


class SleeperConnector(SourceConnector):
    aliases: ClassVar[tuple[str, ...]] = ("io.example.SleeperConnector",)
    config_model: ClassVar[type[ConnectorConfig]] = SleeperConfig
    config: SleeperConfig

    def validate(self, siblings: Mapping[str, Connector]) -> Sequence[Finding]:
        return [
            Finding(f"the slot is that of {name} too", key="slot.name", remedy="Name another")
            for name, sibling in siblings.items()
            if isinstance(sibling, SleeperConnector)
            and self.config.slot_name
            and sibling.config.slot_name == self.config.slot_name
        ]

    def check(self) -> Sequence[Finding]:
        if self.config.behaviour == "check fails":
            return [
                Finding("wal_level is replica", key="database.hostname", remedy="ALTER SYSTEM SET wal_level = logical")
            ]
        if self.config.behaviour == "check raises":
            raise RetriableError(f"cannot reach {self.config.uri or self.config.database_hostname}")
        return []

    def task(self, context: TaskContext) -> SourceTask:
        raise NotImplementedError


class CrasherConfig(ConnectorConfig):
    """Settings of a sink whose task dies."""

    how: Literal["error", "fatal", "exit", "kill", "once", "secret", "protocol"] = Field(
        default="error", description="In which way."
    )
    marker: str = Field(default="", description="File that tells that it has died once.")
    password: SecretStr = Field(default=SecretStr(""), description="A secret.")


class CrasherConnector(SinkConnector):
    config_model: ClassVar[type[ConnectorConfig]] = CrasherConfig
    config: CrasherConfig

    def check(self) -> Sequence[Finding]:
        return []

    def store(self, context: TaskContext) -> Any:
        raise NotImplementedError


class DrainConnector(CrasherConnector):
    """A sink that runs as many tasks as it may."""


class PlainConverter(Converter):
    aliases: ClassVar[tuple[str, ...]] = ("io.example.PlainConverter",)

    def configure(self, config: Mapping[str, str], *, is_key: bool) -> None:
        del is_key
        unknown = [key for key in config if key not in {"encoding"} and not key.startswith("schema.registry.")]
        if unknown:
            raise ConfigError([Finding("unknown key", key=key, remedy="Known is encoding") for key in unknown])

    def key_encoder(self, shape: RowShape, memory: KeyMemory) -> KeyEncoder:
        raise NotImplementedError

    def control_key(self, partition: int) -> bytes:
        raise NotImplementedError

    def value_encoder(self, shape: RowShape) -> ValueEncoder:
        raise NotImplementedError

    def encoder(self, topic: str, schema: Schema | None) -> Encoder:
        raise NotImplementedError

    def to_connect(self, topic: str, payload: bytes | None) -> tuple[Schema | None, Any]:
        raise NotImplementedError


def run_source(connector: SleeperConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
    """Wait for the end of stdin's control; how the end is met is the ``behaviour``."""
    context.report("group", worker["group.id"])
    context.report("registry", worker["schema.registry.url"])
    context.report("state", "RUNNING")
    structlog.get_logger(__name__).info("told to run")
    match connector.config.behaviour:
        case "finish":
            return
        case "wait":
            context.report("waiting", "Postgres")
            while not context.stopping() and not os.path.exists(connector.config.uri):
                threading.Event().wait(0.02)
            context.report("waiting", "")
            context.report("over", True)
        case "hang":
            threading.Event().wait()
        case "leave a thread":
            threading.Thread(target=threading.Event().wait).start()
            raise RuntimeError("left a thread behind")
    while not context.stopping():
        threading.Event().wait(0.02)
    context.report("drained", True)


def run_sink(connector: CrasherConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
    context.report("state", "RUNNING")
    config = connector.config
    match config.how:
        case "fatal":
            raise FatalError("wal_level is replica. ALTER SYSTEM SET wal_level = logical, then restart Postgres")
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "protocol":
            for fd in os.listdir("/proc/self/fd"):  # whatever number the pipe has
                with contextlib.suppress(OSError):
                    os.write(int(fd), b"no protocol\n")
            threading.Event().wait()
        case "secret":
            raise RuntimeError(f"login with {config.password.get_secret_value()!r} failed")
        case "once" if os.path.exists(config.marker):
            while not context.stopping():
                threading.Event().wait(0.02)
            return
        case "once":
            open(config.marker, "w").close()
    raise RuntimeError("the crasher crashed")


if __name__ == "__main__":
    from cdc.runtime import task_process

    sys.exit(task_process.main(run_source, run_sink))
