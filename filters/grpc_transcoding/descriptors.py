"""Descriptor sets: linked, checked, and changed so that Envoy's transcoder gets the rules of a route.

No code here does IO. The well-known files come from the installed packages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from google.api import annotations_pb2, field_behavior_pb2, http_pb2, httpbody_pb2
from google.protobuf import (
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from filters.language import Mistake
from filters.language.problems import did_you_mean

_WELL_KNOWN = (
    annotations_pb2, api_pb2, duration_pb2, empty_pb2, error_details_pb2, field_behavior_pb2, field_mask_pb2,
    http_pb2, httpbody_pb2, status_pb2, struct_pb2, timestamp_pb2, type_pb2, wrappers_pb2,
)  # fmt: skip
_LINKED = ("google/protobuf/duration.proto", "google/rpc/error_details.proto", "google/rpc/status.proto")
"""Linked into every set. Envoy sends no body for an error with a detail of a type that is not in the set."""
HTTP_BODY = "google.api.HttpBody"


@cache
def well_known() -> Mapping[str, descriptor_pb2.FileDescriptorProto]:
    """The files that every .proto file can import without a copy of its own, dependencies first."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in found:
            for other in file.dependencies:
                add(other)
            found[file.name] = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(found[file.name])

    for module in _WELL_KNOWN:
        add(module.DESCRIPTOR)
    return found


def smallest() -> bytes:
    """Return a serialized descriptor set without services."""
    file = well_known()["google/protobuf/empty.proto"]
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True, eq=False)
class Linked:
    """Files in the order of their imports, and the pool in which they are linked. `own` are those of the user."""

    files: tuple[descriptor_pb2.FileDescriptorProto, ...]
    own: frozenset[str]
    pool: descriptor_pool.DescriptorPool

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of the user's services."""
        return tuple(
            f"{file.package}.{service.name}".lstrip(".")
            for file in self.files
            if file.name in self.own
            for service in file.service
        )

    def method(self, name: str) -> MethodDescriptor | None:
        """The method ``package.Service/Method``, or None."""
        service, _, method = name.partition("/")
        if service not in self.services:
            return None
        found: MethodDescriptor | None = self.pool.FindServiceByName(service).methods_by_name.get(method)
        return found


@lru_cache(maxsize=64)
def linked(sets: tuple[bytes, ...]) -> Linked:
    """Return serialized descriptor sets as one, with the well-known files. Raises Mistake."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for content in sets:
        for file in _parsed(content).file:
            file.ClearField("source_code_info")
            known = files.setdefault(file.name, file)
            if known != file:
                message = f"two descriptor sets have different files '{file.name}'"
                raise Mistake(message, "compile both sets from the same files")
    own = frozenset(files) - frozenset(well_known())
    pool, order = descriptor_pool.DescriptorPool(), dict[str, descriptor_pb2.FileDescriptorProto]()

    def add(name: str, importer: str) -> None:
        if name in order:
            return
        file = files.get(name) or well_known().get(name)
        if file is None:
            message = f"the descriptor set has no file '{name}', which '{importer}' imports"
            raise Mistake(message, "write it with protoc --include_imports --descriptor_set_out=FILE")
        order[name] = file  # before its imports, so that a circle ends; the pool rejects it
        for other in file.dependency:
            add(other, name)
        del order[name]
        order[name] = file
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except (TypeError, ValueError) as error:
            raise Mistake(f"the descriptor set is not valid: {error}", "write it with protoc again") from None

    for name in (*files, *_LINKED):
        add(name, "the gateway")
    return Linked(tuple(order.values()), own, pool)


def _parsed(content: bytes) -> descriptor_pb2.FileDescriptorSet:
    try:
        found = descriptor_pb2.FileDescriptorSet.FromString(content)
    except DecodeError:
        found = descriptor_pb2.FileDescriptorSet()
    if not found.file or not all(file.name for file in found.file):
        remedy = "write it with protoc --include_imports --descriptor_set_out=FILE, or name the .proto files in 'protos'"
        raise Mistake("this is not a descriptor set", remedy)
    return found


def annotation(method: MethodDescriptor) -> http_pb2.HttpRule | None:
    """The google.api.http annotation of a method, or None."""
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    if not options.HasExtension(annotations_pb2.http):
        return None
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    return rule


def with_rules(linked: Linked, rules: Mapping[str, http_pb2.HttpRule]) -> bytes:
    """Return a serialized descriptor set in which exactly these methods have an annotation.

    `rules` are by ``package.Service/Method``. Their selector has no meaning in an annotation and is left out.
    """
    result = descriptor_pb2.FileDescriptorSet(file=linked.files)
    for file in result.file:
        if file.name in linked.own:
            for service in file.service:
                name = f"{file.package}.{service.name}".lstrip(".")
                for method in service.method:
                    method.options.ClearExtension(annotations_pb2.http)
                    rule = rules.get(f"{name}/{method.name}")
                    if rule is not None:
                        method.options.Extensions[annotations_pb2.http].CopyFrom(rule)
    return result.SerializeToString(deterministic=True)


def field_names(message: Descriptor, path: str) -> tuple[tuple[str, ...], ...]:
    """Return the names of each field of a path: the one in the .proto file and the one in JSON. Raises Mistake.

    A bound field is of a scalar type and not repeated (google/api/http.proto).
    """
    return tuple((field.name, field.json_name) for field in _fields(message, path))


def _fields(message: Descriptor, path: str) -> Iterator[FieldDescriptor]:
    *outer, last = path.split(".")
    for number, part in enumerate(outer):
        field = _single(message, part, path)
        if field.message_type is None:
            where = ".".join(outer[: number + 1])
            raise Mistake(f"the field '{where}' is no message", "bind a field of a scalar type")
        yield field
        message = field.message_type
    field = _single(message, last, path)
    if field.message_type is not None:
        raise Mistake(f"the field '{path}' is a message", "bind a field of a scalar type")
    yield field


def _single(message: Descriptor, name: str, path: str) -> FieldDescriptor:
    field = field_of(message, name)
    if field.is_repeated:
        raise Mistake(f"the field '{path}' is repeated", "bind a field with one value")
    return field


def field_of(message: Descriptor, name: str) -> FieldDescriptor:
    """Return a field by its name in the .proto file. Raises Mistake."""
    field: FieldDescriptor | None = message.fields_by_name.get(name)
    if field is None:
        remedy = did_you_mean(name, message.fields_by_name)
        raise Mistake(f"the message {message.full_name} has no field '{name}'", remedy)
    return field
