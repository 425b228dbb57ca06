"""Takes the rule against each hazard of ``docs/hazards.md`` out of a copy of the code: a named test must fail then.

``scripts/mutate`` runs them all, ``scripts/mutate H9 H18`` some, and ends with a table. The tree itself stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["MUTATIONS", "Mutation"]

ROOT: Final = Path(__file__).parents[1]
_COPIED: Final = ("cdc", "tests", "bench", "examples", "schemas", "docs", "pyproject.toml", "README.md")
_TIMEOUT_S: Final = 280


@dataclass(frozen=True)
class Mutation:
    """``find`` stands once in ``file``; with ``put`` instead, ``test`` must fail."""

    hazard: str
    file: str
    find: str
    put: str
    test: str


MUTATIONS: Final = (
    Mutation(
        "H1",
        "cdc/postgres/changes.py",
        "                self._resume_ordinal = resume.ordinal\n",
        "                self._resume_ordinal = 0\n",
        "tests/integration/test_source_task.py::test_a_crash_inside_a_transaction_resumes_inside_it",
    ),
    Mutation(
        "H2",
        "cdc/postgres/preparation.py",
        "    return max(stored_epoch + 1, int(time.time()))\n",
        "    return 1\n",
        "tests/unit/test_epoch.py::test_an_epoch_is_above_the_stored_one_whatever_the_clock",
    ),
    Mutation(
        "H3",
        "cdc/postgres/position.py",
        "            self._move(wal_end)\n",
        "            self._move(wal_end)\n            self.durable = wal_end\n",
        "tests/unit/test_position.py::test_idle_progress_is_stored_before_it_is_acknowledged",
    ),
    Mutation(
        "H4",
        "cdc/postgres/preparation.py",
        '    if stored.lsn > system["wal_flush"]:\n',
        "    if False:\n",
        "tests/integration/test_source_task.py::test_a_position_of_another_system_or_beyond_the_wal_is_an_error",
    ),
    Mutation(
        "H5",
        "cdc/postgres/preparation.py",
        "        if time.monotonic() > deadline:\n            raise FatalError(\n"
        '                f"the replication slot {slot} is held by',
        '        if True:\n            raise FatalError(\n                f"the replication slot {slot} is held by',
        "tests/integration/test_source_task.py::test_a_slot_in_use_is_waited_for_and_said",
    ),
    Mutation(
        "H6",
        "cdc/kafka/offsets.py",
        '    with TopicReader(worker, topic, "offsets") as reader:\n',
        '    with TopicReader(worker, topic, "offsets", committed=False) as reader:\n',
        "tests/integration/test_producer.py::test_offsets_behind_anothers_open_transaction_are_waited_for",
    ),
    Mutation(
        "H7",
        "cdc/kafka/producer.py",
        "        if error is None:\n            return\n        if self._failed",
        "        if True:\n            return\n        if self._failed",
        "tests/integration/test_producer.py::test_an_oversize_record_stops_the_pipeline_and_is_not_lost_in_silence",
    ),
    Mutation(
        "H8",
        "cdc/postgres/chunk_records.py",
        '        out.append(RowChange(shape, "r", row, None, row, tx, lsn, ordinal, len(out), marker=marker))\n',
        "        old = Transaction(1, 1, 0, None, None)\n"
        '        out.append(RowChange(shape, "r", row, None, row, old, lsn, ordinal, len(out), marker=marker))\n',
        "tests/integration/test_random_histories.py::test_random_histories_end_equal_everywhere[apache]",
    ),
    Mutation(
        "H9",
        "cdc/postgres/touched.py",
        "            if snapshot.sees(transaction.xid):\n",
        "            if True:\n",
        "tests/unit/test_touched.py::test_a_commit_that_waits_for_a_standby_is_newer_than_the_chunk",
    ),
    Mutation(
        "H10",
        "cdc/postgres/reading.py",
        "                self.decoder.from_lsn[table.oid] = point\n",
        "                self.decoder.from_lsn[table.oid] = 0\n",
        "tests/integration/test_source_task.py::test_rows_of_a_table_without_key_are_told_once_if_the_stream_has_them_too",
    ),
    Mutation(
        "H11",
        "cdc/postgres/reading.py",
        "        elif progress.since:\n            self._ask",
        "        elif False:\n            self._ask",
        "tests/integration/test_slots.py::test_a_reset_after_a_lost_slot_ends_equal_without_ghosts",
    ),
    Mutation(
        "H12",
        "cdc/postgres/evolution.py",
        "        found = Difference() if progress.fingerprint is None else difference(progress.fingerprint, now)\n",
        "        found = Difference()\n",
        "tests/integration/test_schema_evolution.py::test_on_quiet_tables",
    ),
    Mutation(
        "H13",
        "cdc/postgres/reselect.py",
        "        if not durable:\n",
        "        if False:\n",
        "tests/integration/test_toast.py::test_a_value_read_again_is_never_of_a_commit_that_a_crash_can_lose",
    ),
    Mutation(
        "H14",
        "cdc/converters/avro.py",
        "        if found != number:\n",
        "        if False:\n",
        "tests/unit/test_converter_avro.py::test_wiped_registry_stops_the_connector",
    ),
    Mutation(
        "H15",
        "cdc/postgres/captured.py",
        "    if table.deferrable and not table.distinct:\n",
        "    if False:\n",
        "tests/integration/test_source_task.py::test_a_table_that_would_break_the_application_is_refused",
    ),
    Mutation(
        "H16",
        "cdc/runtime/source_writer.py",
        "                        # Compaction needs a key, and it must not be a row's (EXACTNESS.md H16).\n"
        "                        key = self.keys.control_key(partition) if",
        "                        key = None if True else self.keys.control_key(partition) if",
        "tests/integration/test_bridge.py::test_every_kind_of_change_ends_equal",
    ),
    Mutation(
        "H17",
        "cdc/runtime/sink_start.py",
        "            refuse_other_topic(partition, standing)\n",
        "            pass\n",
        "tests/integration/test_sink_task.py::test_h17_a_topic_made_anew_stops_the_task",
    ),
    Mutation(
        "H18",
        "cdc/mirror/assembly.py",
        '                    if position <= state.applied.get(source, b""):\n',
        "                    if False:\n",
        "tests/unit/test_mirror_assembly.py::test_replays_are_dropped_and_counted_and_make_progress",
    ),
    Mutation(
        "H19",
        "cdc/redis/fence.py",
        '        watch = pack(("WATCH", TABLES, *keys))\n',
        '        watch = pack(("ECHO", b""))\n',
        "tests/integration/test_sink_redis_store.py::test_a23_a_writer_that_lost_its_partition_cannot_write",
    ),
    Mutation(
        "H20",
        "cdc/runtime/sink_start.py",
        "            if self._misses(known, entry, now) or ",
        "            if ",
        "tests/integration/test_sink_heals.py"
        "::test_a26_a_sink_that_was_away_longer_than_tombstones_are_kept_removes_the_ghosts",
    ),
    Mutation(
        "H21",
        "cdc/runtime/sink_start.py",
        "                begins[partition] = min(max(low, stored.previous.next), stored.next)\n",
        "                begins[partition] = max(low, stored.next)\n",
        "tests/integration/test_sink_dead_letters.py::test_h21_a_kill_at_any_step_loses_no_letter",
    ),
    Mutation(
        "H22",
        "cdc/mirror/languages.py",
        "def overlap(one: Language, other: Language) -> bytes | None:\n",
        "def overlap(one: Language, other: Language) -> bytes | None:\n    return None\n\n\n"
        "def _overlap(one: Language, other: Language) -> bytes | None:\n",
        "tests/unit/test_mirror_keys.py::test_overlap_is_exact",
    ),
    Mutation(
        "H23",
        "cdc/redis/writer.py",
        "    if verb == REPLACE:\n",
        "    if True:\n",
        "tests/integration/test_sink_redis_store.py::test_nulls_are_removed_and_other_fields_stay",
    ),
    Mutation(
        "H24",
        "cdc/runtime/rebuild/rows.py",
        "            if last is None or last[:2] != record[2:]:\n",
        "            if False:\n",
        "tests/integration/test_rebuild.py::test_a25_all_drift_is_mended_while_rows_change_and_nobody_sees_a_live_row_missing"
        "_or_older",
    ),
)


@dataclass(frozen=True)
class Outcome:
    mutation: Mutation
    text: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.text == "fails"


def run(mutation: Mutation) -> Outcome:
    """Make a copy without the rule and run the test there."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cdc-mutant-") as folder:
        tree = Path(folder)
        for name in _COPIED:
            here = ROOT / name
            if here.is_dir():
                shutil.copytree(here, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(here, tree / name)
        file = tree / mutation.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutation.find) != 1:
            return Outcome(mutation, "not applied", 0.0)
        file.write_text(text.replace(mutation.find, mutation.put), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        try:
            done = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Outcome(mutation, "fails", time.monotonic() - begun)  # what it waits for never comes
    # 1 is a test that failed; whatever else means that none was run.
    text = {0: "PASSES", 1: "fails"}.get(done.returncode, f"not run: status {done.returncode}")
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)  # noqa: T201
    return Outcome(mutation, text, time.monotonic() - begun)


def main() -> int:
    """Exit status 1 unless every test fails without its rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hazards", nargs="*", help="such as H9; all if none is named")
    wanted = parser.parse_args().hazards
    outcomes = []
    for mutation in MUTATIONS:
        if not wanted or mutation.hazard in wanted:
            outcomes.append(outcome := run(mutation))
            told = f"{mutation.hazard:4}  {outcome.text:12}  {outcome.seconds:5.0f} s  {mutation.test}"
            print(told, flush=True)  # noqa: T201
    killed = sum(outcome.killed for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} rules are held by their test")  # noqa: T201
    return 0 if killed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
