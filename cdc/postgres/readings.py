"""What is being read of tables now, and which keys the stream has touched meanwhile. For the task's thread.

Chunks of a reading that is not the table's present one are of no interest any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from cdc.postgres.captured import read_captured
from cdc.postgres.chunks import Chunk, Reading
from cdc.postgres.config import PostgresConfig
from cdc.postgres.server import Server
from cdc.postgres.snapshot import ChunkReader
from cdc.postgres.touched import TouchLog, oldest

__all__ = ["Readings"]


class Readings:
    """The present reading of each table, by OID, and the reader of them all, made when it is needed first.

    With ``silent`` nothing may be written: chunks are placed by LSNs.
    """

    def __init__(self, config: PostgresConfig, name: str, server: Server, touched: TouchLog) -> None:
        self._config = config
        self._name = name
        self._server = server
        self._touched = touched
        self._present: dict[int, Reading] = {}
        self.reader: ChunkReader | None = None
        """There is one from the first table on that is to be read."""
        self.silent = False

    def of(self, oid: int) -> Reading | None:
        """What is being read of the table."""
        return self._present.get(oid)

    def is_present(self, reading: Reading) -> bool:
        """Whether the table is still read so."""
        return self._present.get(reading.oid) is reading

    def expect(self, readings: Sequence[Reading]) -> None:
        """These are requested together, and nothing is read before `start`."""
        self._made().expect(readings)

    def request(self, reading: Reading, *, start: bool = True) -> None:
        """Read a table so, in place of what was being read of it."""
        before = self._present.get(reading.oid)
        if before is not None:
            before.cancel()
        self._present[reading.oid] = reading
        self._made().request(reading)
        if start:
            self.start()

    def start(self) -> None:
        """Begin to read, if there is anything."""
        if self.reader is not None:
            self.reader.start()

    def watch(self, oid: int) -> None:
        """Note from here on which keys of the table the stream touches."""
        self._touched.tables.add(oid)

    def unwatch(self, oid: int) -> None:
        """No rows of the table are being read any more."""
        self._touched.tables.discard(oid)
        if not self._touched.tables:
            self._touched.clear()

    def end(self, oid: int) -> None:
        """Read no more of the table, and tell nothing of what was read of it."""
        self.unwatch(oid)
        reading = self._present.pop(oid, None)
        if reading is not None:
            reading.cancel()

    def leave(self, oid: int) -> None:
        """The table could not be read to its end, and is not read now."""
        self._present.pop(oid, None)

    def told(self, chunk: Chunk) -> None:
        """The chunk is told: forget the keys that no chunk to come can bring back."""
        chunk.reading.seen = chunk.snapshot
        # Chunks of other tables may have been read earlier than this one, and be told later.
        horizon = oldest(other.seen for other in self._present.values() if other.started)
        if horizon is not None:
            self._touched.forget(horizon)

    def stop(self) -> None:
        """Stop reading altogether."""
        if self.reader is not None:
            self.reader.stop()

    def _made(self) -> ChunkReader:
        if self.reader is None:
            config = self._config
            self.reader = ChunkReader(
                self._server.conninfo(),
                self._name,
                config.snapshot_fetch_size,
                f"{config.name}/{os.getpid()}/{time.time_ns()}",
                lambda connection, oid: read_captured(connection, config, oid),
                config.snapshot_max_threads,
                silent=self.silent,
            )
        return self.reader
