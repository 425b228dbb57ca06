"""The mutations of `tests.mutations` can be applied, and their tests exist: the rest is ``scripts/mutate``."""

from __future__ import annotations

import re

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation
from tests.unit.test_traps import names_in


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.hazard)
def test_a_rule_stands_once_in_the_code_and_has_a_test(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.find) == 1
    path, name = mutation.test.split("::")
    assert re.sub(r"\[.*", "", name) in names_in(path)


def test_every_hazard_has_a_rule_to_take_out() -> None:
    hazards = {mutation.hazard for mutation in MUTATIONS}
    assert hazards >= {f"H{number}" for number in range(1, 25)}
