"""Descriptor sets of gRPC services as references of APIs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from filters.api_documents.anchors import Anchors
from filters.api_documents.faults import DocumentFaults, Fault, check_size
from filters.api_documents.reference import (
    ApiReference,
    Body,
    MediaType,
    Operation,
    Property,
    Response,
    Schema,
    Tag,
)
from filters.language.problems import did_you_mean

_Field = descriptor_pb2.FieldDescriptorProto
_File = descriptor_pb2.FileDescriptorProto
_JSON = "application/json"
_STREAMS = {
    (False, False): "unary",
    (True, False): "client stream",
    (False, True): "server stream",
    (True, True): "stream",
}
_SCALARS = {
    _Field.TYPE_DOUBLE: ("number", "double"),
    _Field.TYPE_FLOAT: ("number", "float"),
    _Field.TYPE_INT64: ("string", "int64"),
    _Field.TYPE_UINT64: ("string", "uint64"),
    _Field.TYPE_INT32: ("integer", "int32"),
    _Field.TYPE_FIXED64: ("string", "uint64"),
    _Field.TYPE_FIXED32: ("integer", "uint32"),
    _Field.TYPE_BOOL: ("boolean", ""),
    _Field.TYPE_STRING: ("string", ""),
    _Field.TYPE_BYTES: ("string", "byte"),
    _Field.TYPE_UINT32: ("integer", "uint32"),
    _Field.TYPE_SFIXED32: ("integer", "int32"),
    _Field.TYPE_SFIXED64: ("string", "int64"),
    _Field.TYPE_SINT32: ("integer", "int32"),
    _Field.TYPE_SINT64: ("string", "int64"),
}
"""The types of fields in JSON (https://protobuf.dev/programming-guides/json/)."""
_WELL_KNOWN = {
    "google.protobuf.Timestamp": Schema(types=("string",), format="date-time"),
    "google.protobuf.Duration": Schema(types=("string",), format="duration"),
    "google.protobuf.FieldMask": Schema(types=("string",), format="field-mask"),
    "google.protobuf.Struct": Schema(types=("object",)),
    "google.protobuf.ListValue": Schema(types=("array",)),
    "google.protobuf.Value": Schema(),
    "google.protobuf.Any": Schema(types=("object",)),
    "google.protobuf.Empty": Schema(types=("object",)),
    "google.protobuf.StringValue": Schema(types=("string", "null")),
    "google.protobuf.BytesValue": Schema(types=("string", "null"), format="byte"),
    "google.protobuf.BoolValue": Schema(types=("boolean", "null")),
    "google.protobuf.Int32Value": Schema(types=("integer", "null"), format="int32"),
    "google.protobuf.UInt32Value": Schema(types=("integer", "null"), format="uint32"),
    "google.protobuf.Int64Value": Schema(types=("string", "null"), format="int64"),
    "google.protobuf.UInt64Value": Schema(types=("string", "null"), format="uint64"),
    "google.protobuf.FloatValue": Schema(types=("number", "null"), format="float"),
    "google.protobuf.DoubleValue": Schema(types=("number", "null"), format="double"),
}
_MESSAGE, _ENUM, _SERVICE, _NESTED, _NESTED_ENUM, _FIELD, _VALUE, _METHOD = 4, 5, 6, 3, 4, 2, 2, 2
"""Numbers of fields in a path of SourceCodeInfo (descriptor.proto)."""


def read(sets: Sequence[bytes], services: Collection[str] = ()) -> ApiReference:
    """Return the reference of the services of descriptor sets, or of some `services`. Raises DocumentFaults."""
    files: dict[str, _File] = {}
    for content in sets:
        check_size(content)
        try:
            found = descriptor_pb2.FileDescriptorSet.FromString(content)
        except DecodeError:
            found = descriptor_pb2.FileDescriptorSet()
        if not found.file or not all(file.name for file in found.file):
            remedy = "write it with protoc --include_imports --include_source_info --descriptor_set_out=FILE"
            raise DocumentFaults(Fault(message="this is not a descriptor set", remedy=remedy))
        for file in found.file:
            files.setdefault(file.name, file)
    return _Descriptors(files.values()).reference(services)


class _Descriptors:
    """Messages, enums and services of some files by their full names."""

    def __init__(self, files: Collection[_File]) -> None:
        self._messages: dict[str, tuple[descriptor_pb2.DescriptorProto, _File, tuple[int, ...]]] = {}
        self._enums: dict[str, tuple[descriptor_pb2.EnumDescriptorProto, _File, tuple[int, ...]]] = {}
        self._services: dict[str, tuple[descriptor_pb2.ServiceDescriptorProto, _File, int]] = {}
        self._comments: dict[str, Mapping[tuple[int, ...], str]] = {}
        for file in files:
            prefix = f"{file.package}." if file.package else ""
            for at, message in enumerate(file.message_type):
                self._add(message, prefix, file, (_MESSAGE, at))
            for at, enum in enumerate(file.enum_type):
                self._enums[prefix + enum.name] = enum, file, (_ENUM, at)
            for at, service in enumerate(file.service):
                self._services[prefix + service.name] = service, file, at

    def _add(
        self, message: descriptor_pb2.DescriptorProto, prefix: str, file: _File, path: tuple[int, ...]
    ) -> None:
        name = prefix + message.name
        self._messages[name] = message, file, path
        for at, nested in enumerate(message.nested_type):
            self._add(nested, f"{name}.", file, (*path, _NESTED, at))
        for at, enum in enumerate(message.enum_type):
            self._enums[f"{name}.{enum.name}"] = enum, file, (*path, _NESTED_ENUM, at)

    def reference(self, wanted: Collection[str]) -> ApiReference:
        for number, name in enumerate(wanted):
            if name not in self._services:
                remedy = did_you_mean(name, self._services) or "name a service of the files"
                raise DocumentFaults(
                    Fault(message=f"there is no service '{name}'", remedy=remedy, path=("services", number))
                )
        if not self._services:
            raise DocumentFaults(
                Fault(message="the files have no service", remedy="name files with a service")
            )
        names = [name for name in self._services if not wanted or name in wanted]
        anchors = Anchors()
        operations = tuple(one for name in names for one in self._operations(name, anchors))
        return ApiReference(
            kind="grpc",
            title=names[0].rpartition(".")[2] if len(names) == 1 else "",
            description=self._of_service(names[0]) if len(names) == 1 else "",
            tags=tuple(Tag(name=name, description=self._of_service(name)) for name in names),
            operations=operations,
            schemas=self._reachable(operations),
        )

    def _of_service(self, name: str) -> str:
        _, file, at = self._services[name]
        return self._comment(file, (_SERVICE, at))

    def _operations(self, name: str, anchors: Anchors) -> Iterator[Operation]:
        service, file, at = self._services[name]
        for number, method in enumerate(service.method):
            yield Operation(
                id=anchors.new(f"{name}.{method.name}"),
                method=_STREAMS[method.client_streaming, method.server_streaming],
                path=f"/{name}/{method.name}",
                summary=method.name,
                description=self._comment(file, (_SERVICE, at, _METHOD, number)),
                tags=(name,),
                deprecated=method.options.deprecated,
                body=Body(
                    required=True, content=(MediaType(name=_JSON, schema=self._type(method.input_type)),)
                ),
                responses=(
                    Response(content=(MediaType(name=_JSON, schema=self._type(method.output_type)),)),
                ),
            )

    def _reachable(self, operations: Sequence[Operation]) -> dict[str, Schema]:
        """Return the messages and enums that the operations use."""
        found: dict[str, Schema] = {}
        waiting = [
            media.schema
            for one in operations
            for owner in (one.body, *one.responses)
            for media in (owner.content if owner is not None else ())
        ]
        for one in waiting:
            if one.ref and one.ref not in found:
                found[one.ref] = self._named(one.ref)
                waiting.append(found[one.ref])
            waiting.extend(one.parts)
        return dict(sorted(found.items()))

    def _named(self, name: str) -> Schema:
        if name in self._enums:
            enum, file, path = self._enums[name]
            return Schema(
                types=("string",),
                description=self._comment(file, path),
                enum=tuple(value.name for value in enum.value),
                deprecated=enum.options.deprecated,
            )
        if name not in self._messages:
            return Schema(types=("object",))
        message, file, path = self._messages[name]
        return Schema(
            types=("object",),
            description=self._comment(file, path),
            properties=tuple(
                Property(
                    name=field.json_name or field.name, schema=self._field(field, file, (*path, _FIELD, at))
                )
                for at, field in enumerate(message.field)
            ),
            deprecated=message.options.deprecated,
        )

    def _field(self, field: _Field, file: _File, path: tuple[int, ...]) -> Schema:
        description, deprecated = self._comment(file, path), field.options.deprecated
        found = self._messages.get(field.type_name.lstrip("."))
        if found is not None and found[0].options.map_entry:
            values = self._single(found[0].field[1])
            return Schema(
                types=("object",), additional=values, description=description, deprecated=deprecated
            )
        if field.label == _Field.LABEL_REPEATED:
            items = self._single(field)
            return Schema(types=("array",), items=items, description=description, deprecated=deprecated)
        one = self._single(field)
        return Schema(
            ref=one.ref, types=one.types, format=one.format, description=description, deprecated=deprecated
        )

    def _single(self, field: _Field) -> Schema:
        if field.type in _SCALARS:
            kind, form = _SCALARS[field.type]
            return Schema(types=(kind,), format=form)
        return self._type(field.type_name)

    def _type(self, written: str) -> Schema:
        name = written.lstrip(".")
        return _WELL_KNOWN.get(name) or Schema(ref=name)

    def _comment(self, file: _File, path: tuple[int, ...]) -> str:
        """Return the comment before a declaration, or behind it. A set has comments only with --include_source_info."""
        if file.name not in self._comments:
            self._comments[file.name] = {
                tuple(one.path): one.leading_comments or one.trailing_comments
                for one in file.source_code_info.location
                if one.leading_comments or one.trailing_comments
            }
        text = self._comments[file.name].get(path, "")
        return "\n".join(line.removeprefix(" ").rstrip() for line in text.splitlines()).strip()
