"""Apache Kafka's jars, resolved once by Maven and kept for all later runs.

They lie in ``${CDC_CACHE_DIR:-~/.cache/cdc}/kafka-<version>/<digest of the POM>/``. A folder of that
name is whole: it is filled under another name and renamed, one process at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from cdc.local.errors import MissingPart

__all__ = ["JVM_REMEDY", "KAFKA_VERSION", "cache_folder", "java", "kafka_jars"]

KAFKA_VERSION = "4.3.0"
"""4.4.0 is published in part only (no kafka-tools)."""

JVM_REMEDY = "apt-get install default-jre-headless maven"

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>cdc.local</groupId>
  <artifactId>kafka</artifactId>
  <version>{KAFKA_VERSION}</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    """``$CDC_CACHE_DIR``, else ``~/.cache/cdc``."""
    chosen = os.environ.get("CDC_CACHE_DIR")
    return Path(chosen).absolute() if chosen else Path.home() / ".cache" / "cdc"


def java() -> Path:
    """The ``java`` of ``$JAVA_HOME`` or of the path. Raises `MissingPart`."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        where = f"in {home}/bin (JAVA_HOME)" if home else "on the PATH"
        raise MissingPart("A Java runtime, 17 or newer", JVM_REMEDY, f"no java {where}")
    return Path(found)


def kafka_jars() -> Path:
    """The folder with Apache Kafka's jars, downloaded if this machine has not got them yet.

    Raises `MissingPart` when Maven is not installed or cannot download them.
    """
    home = cache_folder() / f"kafka-{KAFKA_VERSION}"
    jars = home / hashlib.sha256(_POM.encode()).hexdigest()[:12]
    if jars.is_dir():
        return jars
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():  # else somebody was faster
            _download(home, jars)
    return jars


def _download(home: Path, jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingPart(f"Apache Kafka {KAFKA_VERSION}", JVM_REMEDY, "no mvn on the PATH to download it with")
    with tempfile.TemporaryDirectory(prefix="download-", dir=home) as work:
        (Path(work) / "pom.xml").write_text(_POM, encoding="utf-8")
        command = [
            *(maven, "--quiet", "--batch-mode", "--no-transfer-progress", "--file", f"{work}/pom.xml"),
            *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={work}/lib"),
        ]
        run = subprocess.run(  # noqa: S603
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if run.returncode != 0:
            (home / "pom.xml").write_text(_POM, encoding="utf-8")
            said = " ".join((run.stdout + run.stderr).split())[:600]
            raise MissingPart(
                f"Apache Kafka {KAFKA_VERSION}",
                f"mvn --file {home}/pom.xml dependency:resolve, on a network that reaches a Maven repository",
                f"Maven could not download it: {said}",
            )
        (Path(work) / "lib").rename(jars)
