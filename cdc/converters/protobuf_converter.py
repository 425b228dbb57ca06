"""Confluent's Protobuf converter. Needs the package ``protobuf``, which comes with the extra of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from cdc.converters.registered import ReadPlan, RegisteredConverter
from cdc.converters.settings import Setting
from cdc.errors import ConfigError, Finding
from cdc.record import Schema

try:
    from cdc.codec.protobuf_plan import ProtobufFile, payload_writer
    from cdc.codec.protobuf_schema import protobuf_text
except ModuleNotFoundError as _missing:
    if not (_missing.name or "").startswith("google"):
        raise
    _installed = False
else:
    _installed = True

__all__ = ["ProtobufConverter"]


class ProtobufConverter(RegisteredConverter):
    """``io.confluent.connect.protobuf.ProtobufConverter``, as with its ``optional.for.nullables=true``.

    Its default would make 0 and the empty text of a null.
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.confluent.connect.protobuf.ProtobufConverter",)
    kind = "PROTOBUF"
    label = "Protobuf"
    settings = (
        Setting("optional.for.nullables", "true", "Only true: else a null would be read as zero.", {"true": True}),
        Setting("wrapper.for.nullables", "false", "Only false: optional fields say the same.", {"false": False}),
        Setting("wrapper.for.raw.primitives", "true", "Only true: wrappers are read as scalars.", {"true": True}),
    )
    ignored = frozenset(
        {
            *("enhanced.protobuf.schema.support", "scrub.invalid.names", "int.for.enums", "flatten.unions"),
            *("generate.index.for.unions", "generate.struct.for.nulls", "optional.for.proto2"),
            *("reference.subject.name.strategy", "skip.known.types", "reference.lookup.only"),
        }
    )

    def _configure(self, config: Mapping[str, str]) -> None:
        if not _installed:
            raise ConfigError(
                [Finding("the Protobuf converter needs the package protobuf", remedy="Install cdc[protobuf]")]
            )
        super()._configure(config)

    def _take(self, found: Mapping[str, Any]) -> None:
        """All its settings have one value."""

    def _form(self) -> str:
        return "Protobuf"

    def _text(self, topic: str, schema: Schema) -> str:  # noqa: ARG002 - names come from the schema
        return protobuf_text(schema)

    def _connect(self, text: str) -> Schema:
        return ProtobufFile(text).schema()

    def _payload(self, schema: Schema, text: str) -> Callable[[Any], bytes]:
        return payload_writer(text, schema)

    def _plan(self, text: str) -> ReadPlan:
        return ReadPlan(ProtobufFile(text).read)
