"""Files in every format become the same properties, and what is wrong in them is told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config.jsonfile import read_json
from cdc.config.properties import parse_properties, read_properties
from cdc.config.tree import Findings, Table, flatten
from cdc.config.yamlfile import read_yaml


def yaml_entries(text: str) -> tuple[dict[str, str], list[str]]:
    findings = Findings()
    table = read_yaml(text, "f.yaml", 0, findings)
    entries = flatten(table, "worker", findings) if table else {}
    return {key: entry.text for key, entry in entries.items()}, [str(finding) for finding in findings.in_order()]


def test_nested_keys_are_joined_with_dots_and_lists_with_commas() -> None:
    entries, findings = yaml_entries("""
a.b: plain
table:
  include:
    list: [public.customers, public.orders]
  exclude.list:
    - one
    - two
""")
    assert entries == {
        "a.b": "plain",
        "table.include.list": "public.customers,public.orders",
        "table.exclude.list": "one,two",
    }
    assert findings == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", "true"),
        ("False", "false"),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        ("0x1F", "0x1F"),
        ("12:30:45", "12:30:45"),
        ("2026-01-31", "2026-01-31"),
        ('"true "', "true "),
        ("'~'", "~"),
        ('""', ""),
        (r"shop\.public\..*", r"shop\.public\..*"),
        ('"{table}:{pk}"', "{table}:{pk}"),
    ],
)
def test_scalars_are_what_is_written(written: str, meant: str) -> None:
    assert yaml_entries(f"key: {written}") == ({"key": meant}, [])


def test_anchors_and_merge_keys_give_defaults_that_the_nearer_overrides() -> None:
    entries, findings = yaml_entries("""
base: &base {a: 1, b: 1}
more: &more {b: 2, c: 2}
merged:
  <<: [*base, *more]
  a: 3
""")
    assert {key: text for key, text in entries.items() if key.startswith("merged.")} == {
        "merged.a": "3",
        "merged.b": "1",
        "merged.c": "2",
    }
    assert findings == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("a: 1\na: 2\n", "f.yaml:2: worker.a: given twice, first at f.yaml:1. Remove one of the two"),
        ("a:\n  b: 1\na.b: 2\n", "f.yaml:3: worker.a.b: given twice, first at f.yaml:2. Remove one of the two"),
        ("a: 1\n\tb: 2\n", "f.yaml:2: not valid YAML: a tab where only spaces may stand; indent with spaces"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a:\n", 'f.yaml:1: worker.a: has no value. Remove the line, or write "" for an empty value'),
        ("a: {}\n", "f.yaml:1: worker.a: has no value. Remove the line"),
        ("a: [[1]]\n", "f.yaml:1: worker.a: expected a list of plain values, found a nested or empty item in it"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be plain text"),
        (
            "a: 1\n---\nb: 2\n",
            "f.yaml:2: not valid YAML: a second document (---) in the file; one file is one document",
        ),
        ("- a\n", "f.yaml:1: expected keys and values, such as worker: and connectors:"),
        ("", "f.yaml: is empty. A configuration has the keys worker and connectors"),
        ("a: &x [*x]\n", "f.yaml:1: an alias that contains itself, or too many values"),
        ("a: \x01\n", "f.yaml:1: not valid YAML: a control character"),
    ],
)
def test_faults_of_yaml_are_one_clear_line(text: str, finding: str) -> None:
    assert yaml_entries(text)[1] == [finding]


@pytest.mark.parametrize(
    "value", ["*hunter2", "!hunter2 x", "!hunter2!x y", "{hunter2", "[hunter2", "&hunter2 *hunter2", "'hunter2"]
)
def test_a_secret_that_is_no_yaml_is_not_repeated(value: str) -> None:
    _, findings = yaml_entries(f"database.password: {value}\n")
    assert findings
    assert "hunter2" not in "".join(findings)


def test_aliases_of_aliases_do_not_explode() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    _, findings = yaml_entries("\n".join(lines))
    assert any("too many values" in finding for finding in findings)


def test_json_knows_its_lines() -> None:
    findings = Findings()
    text = '{\n  "name": "x",\n  "config": {\n    "a": 1.50, "b": [true, "c\\"}"],\n    "a": null\n  }\n}\n'
    table = read_json(text, "f.json", 0, findings)
    assert table is not None
    config = table.get("config")
    assert isinstance(config, Table)
    entries = flatten(config, "connectors.x", findings)
    assert {key: (entry.text, entry.place.line) for key, entry in entries.items()} == {
        "a": ("1.50", 4),
        "b": ('true,c"}', 4),
    }
    assert [str(finding) for finding in findings.in_order()] == [
        'f.json:5: connectors.x.a: has no value. Remove the line, or write "" for an empty value'
    ]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ('{\n"a": hunter2}', "f.json:2: not valid JSON: Expecting value (column 6)"),
        ('{"a": "hunter2', "f.json:1: not valid JSON: Unterminated string starting at (column 7)"),
        ("[1]", "f.json:1: expected an object with keys and values"),
    ],
)
def test_faults_of_json_are_one_clear_line(text: str, finding: str) -> None:
    findings = Findings()
    read_json(text, "f.json", 0, findings)
    assert [str(found) for found in findings.in_order()] == [finding]


def test_properties_are_read_as_java_reads_them() -> None:
    text = (
        "# comment\n! comment\n\n"
        "a=1\n b : 2\nc 3\nd\ne=\n"
        "key\\ with\\=both = v=w:x\n"
        "long = one, \\\n    two, \\\n  three\n"
        "uni=\\u00e9\\t\\x\\\\\n"
        "path=C:\\\\temp\n"
    )
    assert [(key, value) for key, value, _ in parse_properties(text)] == [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("d", ""),
        ("e", ""),
        ("key with=both", "v=w:x"),
        ("long", "one, two, three"),
        ("uni", "é\tx\\"),
        ("path", "C:\\temp"),
    ]
    assert [line for _, _, line in parse_properties(text)] == [4, 5, 6, 7, 8, 9, 10, 13, 14]


def test_an_odd_escape_in_properties_names_its_line() -> None:
    findings = Findings()
    assert read_properties("a=1\nb=\\u12\n", "w.properties", 0, findings) is None
    assert [str(finding) for finding in findings.in_order()] == [
        "w.properties: line 2: \\u is not followed by four hexadecimal digits"
    ]


_KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1).filter(
    lambda key: key.strip() == key
)


def _store(text: str, *, key: bool) -> str:
    """As java.util.Properties.store escapes."""
    out = "".join("\\" + char if char in "\\=:#! \t\f" else char for char in text)
    if not key:
        out = out.replace("\n", "\\n").replace("\r", "\\r")
    return out


@given(st.dictionaries(_KEYS, st.text(st.characters(codec="utf-8")), max_size=5))
def test_what_java_stores_is_read_back(properties: dict[str, str]) -> None:
    text = "\n".join(f"{_store(key, key=True)}={_store(value, key=False)}" for key, value in properties.items())
    assert {key: value for key, value, _ in parse_properties(text)} == properties


def test_lines_count_from_one_in_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text("worker:\n  a: 1\n  a: 2\n", encoding="utf-8")
    findings = Findings()
    table = read_yaml(path.read_text(encoding="utf-8"), str(path), 0, findings)
    assert table is not None
    worker = table.get("worker")
    assert isinstance(worker, Table)
    flatten(worker, "worker", findings)
    assert findings.in_order()[0].where == f"{path}:3"
