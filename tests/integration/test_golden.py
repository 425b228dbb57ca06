"""Every history that Debezium was recorded on comes out of our source as it came out of Debezium (tests/golden)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.local.postgres import Postgres
from tests.fix_servers import fresh_database
from tests.integration.golden_compare import (
    Rule,
    clocks_apart,
    differences,
    pruned_records,
    pruned_schemas,
)
from tests.integration.golden_run import GOLDEN, VERSION, Recording, Scenario

pytestmark = pytest.mark.integration

NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
DEBEZIUM = "3.6.0.Final"
EXTRA = {
    # Not compacted, as the recording's: a truncate has a null key there.
    "topic.creation.default.cleanup.policy": "delete",
    "toast.handling.mode": "placeholder",
    # Debezium reads no table again; whether it would be in time here is a question of the machine.
    "schema.resnapshot.enabled": "false",
}

NOT_YET: dict[str, str] = {}


CONSEQUENCES: dict[str, list[Rule]] = {
    # The table is the last one of the snapshot, because its partitions are not read again.
    "partitioned_root_on": [Rule(topic=r"\.part$", path=r"^value\.source\.snapshot$", key='"us"')],
}
"""What follows from a difference that is allowed."""


def cases() -> Iterator[Any]:
    for name in NAMES:
        marks = [pytest.mark.xfail(strict=True, reason=NOT_YET[name])] if name in NOT_YET else []
        yield pytest.param(name, marks=marks)


def test_there_are_all_histories() -> None:
    assert len(NAMES) == 66
    assert NOT_YET.keys() <= set(NAMES)


@pytest.mark.parametrize("name", list(cases()))
def test_history_comes_out_as_recorded(name: str, postgres15: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(name)
    with fresh_database(postgres15, "golden") as database:
        told = scenario.run(database, monkeypatch, EXTRA)
    rules = [Rule.read(form) for form in scenario.json("allowed.json", [])] + CONSEQUENCES.get(name, [])
    found = [
        *wrong_records(scenario, told, rules),
        *wrong_connect_schemas(scenario, told, rules),
        *wrong_avro_schemas(scenario, told, rules),
    ]
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:40])


def wrong_records(scenario: Scenario, told: Recording, rules: list[Rule]) -> Iterator[str]:
    singles = single_fields(told)
    lines = scenario.sql("records.jsonl").replace(f'"version": "{DEBEZIUM}"', f'"version": "{VERSION}"').splitlines()
    wanted = by_partition(pruned_records([json.loads(line) for line in lines], rules))
    found = by_partition(pruned_records(told.records, rules))
    for place in sorted(wanted.keys() | found.keys()):
        yield from differences(wanted.get(place, []), found.get(place, []), "/".join(map(str, place)), singles)
    for record in told.records:
        yield from clocks_apart(record["value"], record["topic"])


def single_fields(told: Recording) -> frozenset[str]:
    """Names of the fields that are 32-bit floats: older Java prints some of them with more digits than they need."""

    def walk(schema: dict[str, Any]) -> Iterator[str]:
        if schema["type"] == "float":
            yield schema.get("field", "")
        for part in schema.get("fields", ()):
            yield from walk(part)

    sides = (side for topic in told.connect.values() for side in topic.values())
    return frozenset(name for side in sides for schema in side for name in walk(schema))


def by_partition(records: list[Any]) -> dict[tuple[str, int], list[Any]]:
    parted: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        parted.setdefault((record["topic"], record["partition"]), []).append(record)
    return parted


def wrong_connect_schemas(scenario: Scenario, told: Recording, rules: list[Rule]) -> Iterator[str]:
    recorded = scenario.json("connect-schemas.json")
    for topic in sorted(recorded.keys() | told.connect.keys()):
        for side in ("key", "value"):
            if scenario.properties.get(f"{side}.converter.schemas.enable") == "false":
                continue
            wanted = recorded.get(topic, {}).get(side, [])
            found = told.connect.get(topic, {}).get(side, [])
            yield from differences(
                pruned_schemas(topic, side, wanted, rules),
                pruned_schemas(topic, side, found, rules),
                f"Connect schema of {topic} {side}",
            )


def wrong_avro_schemas(scenario: Scenario, told: Recording, rules: list[Rule]) -> Iterator[str]:
    folder = scenario.folder / "schemas"
    if not folder.exists():
        assert (scenario.folder / "avro-error.txt").exists()
        return
    subjects = {subject for subject in told.avro if subject != "cdc.control-key"}
    subjects |= {path.name.rsplit(".v", 1)[0] for path in folder.iterdir()}
    for subject in sorted(subjects):
        topic, _, side = subject.rpartition("-")
        recorded = [json.loads(path.read_text(encoding="utf-8")) for path in versions(folder, subject)]
        wanted = pruned_schemas(topic, side, recorded, rules)
        found = pruned_schemas(topic, side, [json.loads(text) for text in told.avro.get(subject, ())], rules)
        wrong = list(differences(wanted, found, f"Avro schema {subject}"))
        yield from wrong
        if not wrong and json.dumps(wanted) != json.dumps(found):
            yield f"Avro schema {subject}: the same attributes in another order"


def versions(folder: Path, subject: str) -> list[Path]:
    return sorted(folder.glob(f"{subject}.v*.json"), key=lambda path: int(path.name.rsplit(".v", 1)[1].split(".")[0]))
