"""docs/types.md is what the code says today, and each of its rows is right for all types it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.operate.type_table import documented, mappings, render
from cdc.postgres.types import TypeMapping

PAGE = Path(__file__).parents[2] / "docs" / "types.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "a type has changed; run: python -m cdc.operate.type_table > docs/types.md"
    )
    assert "<<" not in render()


@pytest.mark.parametrize(("name", "row"), list(mappings()))
def test_the_types_of_a_row_have_one_mapping(name: str, row: list[TypeMapping]) -> None:
    assert [mapping.schema for mapping in row] == [row[0].schema] * len(row), name


def test_common_types_are_documented() -> None:
    assert {"int4", "text", "timestamptz", "hstore", "vector", "pg_lsn", "xid8"} <= documented()
