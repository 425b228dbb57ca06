"""Values as text of headers are those that Kafka Connect's SimpleHeaderConverter writes."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.codec.header_text import header_text
from cdc.record import Field, Schema

STRING = Schema("string")
DECIMAL = Schema("bytes", name="org.apache.kafka.connect.data.Decimal", parameters=(("scale", "2"),))


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        (STRING, 'plain "text"', 'plain "text"'),
        (Schema("int64"), 2**62, str(2**62)),
        (Schema("boolean"), True, "true"),
        (Schema("string", optional=True), None, "null"),
        (DECIMAL, (-5).to_bytes(1, "big", signed=True), "-0.05"),
        (DECIMAL, (10**40 + 1).to_bytes(20, "big", signed=True), "1" + "0" * 37 + "0.01"),
        (Schema("bytes"), b"\x00\xff", '"AP8="'),
        (Schema("array", values=STRING), ["a", "b"], '["a","b"]'),
        (Schema("map", keys=STRING, values=Schema("int32")), {"a": 1}, '{"a":1}'),
        (Schema("int32", name="org.apache.kafka.connect.data.Date"), 19723, '"2024-01-01"'),
        (Schema("int64", name="org.apache.kafka.connect.data.Timestamp"), 1704067200001, '"2024-01-01T00:00:00.001Z"'),
        (Schema("int32", name="org.apache.kafka.connect.data.Time"), 1500, '"00:00:01.500Z"'),
    ],
)
def test_text_of_a_value(schema: Schema, value: Any, text: str) -> None:
    assert header_text(schema, value) == text


def test_text_inside_of_a_struct_is_quoted_and_escaped() -> None:
    struct = Schema("struct", fields=(Field("b", STRING), Field("c", Schema("int32", optional=True))))
    assert header_text(struct, {"b": 'x"\\', "c": None}) == '{"b":"x\\"\\\\","c":null}'
