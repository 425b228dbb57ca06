"""The Protobuf files that Connect's schemas lean on, and Confluent's options, in a pool of their own.

Made from what the files say, so that nothing but the Protobuf library itself is needed: ``confluent/meta.proto``
(options with free parameters), ``confluent/type/decimal.proto``, ``google/type/date.proto`` and ``timeofday.proto``.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

__all__ = ["DATE", "DECIMAL", "FILES", "TIME", "TIMESTAMP", "WRAPPERS", "FileProto", "file_params", "set_params"]

DECIMAL: Final = "confluent.type.Decimal"
DATE: Final = "google.type.Date"
TIME: Final = "google.type.TimeOfDay"
TIMESTAMP: Final = "google.protobuf.Timestamp"
WRAPPERS: Final = {
    f"google.protobuf.{message.name}" for message in wrappers_pb2.DESCRIPTOR.message_types_by_name.values()
}
_META_NUMBER: Final = 1088
"""Of Confluent's extensions of all kinds of options."""

_Proto = descriptor_pb2.FieldDescriptorProto


def _file(name: str, package: str, message: str, fields: list[tuple[str, int]]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    added = file.message_type.add(name=message)
    for number, (field, type_) in enumerate(fields, 1):
        added.field.add(name=field, number=number, type=type_, label=_Proto.LABEL_OPTIONAL)
    return file


def _copy(descriptor: Any) -> Any:
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file


_INT32: Final = _Proto.TYPE_INT32
FILES: Final[dict[str, Any]] = {
    file.name: file
    for file in (
        _file(
            "confluent/type/decimal.proto",
            "confluent.type",
            "Decimal",
            [("value", _Proto.TYPE_BYTES), ("precision", _Proto.TYPE_UINT32), ("scale", _INT32)],
        ),
        _file("google/type/date.proto", "google.type", "Date", [(name, _INT32) for name in ("year", "month", "day")]),
        _file(
            "google/type/timeofday.proto",
            "google.type",
            "TimeOfDay",
            [(name, _INT32) for name in ("hours", "minutes", "seconds", "nanos")],
        ),
        _copy(timestamp_pb2.DESCRIPTOR),
        _copy(wrappers_pb2.DESCRIPTOR),
    )
}
"""Files that every registry knows: no schema carries them."""


def _meta() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="confluent/meta.proto",
        package="confluent",
        syntax="proto3",
        dependency=["google/protobuf/descriptor.proto"],
    )
    meta = file.message_type.add(name="Meta")
    meta.field.add(name="doc", number=1, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    entry = meta.nested_type.add(name="ParamsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    meta.field.add(
        name="params",
        number=2,
        type=_Proto.TYPE_MESSAGE,
        type_name=".confluent.Meta.ParamsEntry",
        label=_Proto.LABEL_REPEATED,
    )
    for kind in ("File", "Field"):
        file.extension.add(
            name=f"{kind.lower()}_meta",
            number=_META_NUMBER,
            type=_Proto.TYPE_MESSAGE,
            type_name=".confluent.Meta",
            extendee=f".google.protobuf.{kind}Options",
            label=_Proto.LABEL_OPTIONAL,
        )
    return file


_pool: Final = descriptor_pool.DescriptorPool()
for _each in (_copy(descriptor_pb2.DESCRIPTOR), _meta(), *FILES.values()):
    _pool.AddSerializedFile(_each.SerializeToString())
message_factory.GetMessageClassesForFiles(["google/protobuf/descriptor.proto", "confluent/meta.proto"], _pool)

FileProto: Final[Any] = message_factory.GetMessageClass(
    _pool.FindMessageTypeByName("google.protobuf.FileDescriptorProto")
)
"""A ``FileDescriptorProto`` that knows Confluent's options."""
_META: Final = {kind: _pool.FindExtensionByName(f"confluent.{kind}_meta") for kind in ("file", "field")}


def set_params(options: Any, kind: str, params: dict[str, str]) -> None:
    """Set the parameters of the options of a ``file`` or ``field``."""
    options.Extensions[_META[kind]].params.update(params)


def file_params(file: Any) -> dict[str, str]:
    """The parameters of a file's options."""
    return dict(file.options.Extensions[_META["file"]].params) if file.options.HasExtension(_META["file"]) else {}
