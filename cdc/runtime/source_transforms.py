"""Transforms between a source and its converters: changes of rows become general records, go through the chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from cdc.codec.connect_rows import RowValues, row_values
from cdc.config import Step, load_transforms
from cdc.errors import CdcError
from cdc.record import ConnectRecord, RowChange, RowShape
from cdc.runtime.letters import class_name

__all__ = ["Chain", "load_chain"]


class Chain:
    """The transforms of one task, in order."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._version = version("cdc")
        self._values: dict[RowShape, RowValues] = {}
        self.failed = ""
        """The class of the transform that raised the last error."""

    def record(self, change: RowChange, now_us: int) -> ConnectRecord:
        """The change as the chain is given it."""
        shape = change.shape
        values = self._values.get(shape)
        if values is None:
            values = self._values[shape] = row_values(shape, self._version)
        return values.record(change, now_us)

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        """What the chain makes of a record; ``None`` when a transform drops it."""
        step = None
        try:
            for step in self._steps:
                if step.predicate is not None and step.predicate.test(record) is step.negate:
                    continue
                made = step.transform.apply(record)
                if made is None:
                    return None
                record = made
        except CdcError:
            self.failed = "" if step is None else class_name(step.transform)
            raise
        return record

    @property
    def keeps_place(self) -> bool:
        """Whether a row's records stay in its topic, under its key."""
        return all(step.transform.keeps_place for step in self._steps)

    def warnings(self) -> list[str]:
        """What somebody who mirrors the topics should know, in plain words."""
        words = {"d": "DELETE", "t": "TRUNCATE"}
        return [
            f"the transform {type(step.transform).__name__} drops records of "
            f"{' and '.join(words[op] for op in dropped)}: rows that are removed so stay in sinks"
            for step in self._steps
            if (dropped := sorted(step.transform.drops))
        ]

    def close(self) -> None:
        for step in self._steps:
            step.transform.close()


def load_chain(properties: Mapping[str, str]) -> Chain | None:
    """The chain of ``transforms``; ``None`` when there is none."""
    steps = load_transforms(properties)
    return Chain(steps) if steps else None
