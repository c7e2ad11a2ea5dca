"""Resources as plain values for people (protobuf's JSON mapping, Envoy's field names), without private keys.

json_format inspects every field of every message. This module inspects each message type once, because a gateway has
many messages of few types.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from google.protobuf import any_pb2, duration_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import SECRET, ResourceType

REDACTED = "[redacted]"
_ANY = any_pb2.Any.DESCRIPTOR.full_name
_DURATION = duration_pb2.Duration.DESCRIPTOR.full_name
_WRAPPERS = frozenset(f"google.protobuf.{one}Value" for one in ("UInt32", "Int32", "Bool", "String"))
_INT64 = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)

Convert = Callable[[Any], Any]


def decoded(type_: ResourceType, resource: Resource) -> Message:
    """Return the message of a resource."""
    return _class(type_.message).FromString(resource.body)


def plain(message: Message) -> dict[str, Any]:
    """Return a message as plain values, with Envoy's field names."""
    fields = _fields(message.DESCRIPTOR)
    result = {}
    for field, value in message.ListFields():
        name, convert = fields[field.number]
        result[name] = convert(value)
    return result


def readable(type_: ResourceType, resource: Resource) -> dict[str, Any]:
    """Return a resource as plain values, with Envoy's field names."""
    value = plain(decoded(type_, resource))
    if type_ is SECRET:
        _redact(value)
    return value


@cache
def _class(full_name: str) -> type[Message]:
    message_class: type[Message] = message_factory.GetMessageClass(Default().FindMessageTypeByName(full_name))
    return message_class


@cache
def _fields(descriptor: Descriptor) -> Mapping[int, tuple[str, Convert]]:
    return {field.number: (field.name, _field(field)) for field in descriptor.fields}


def _field(field: FieldDescriptor) -> Convert:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        one = _single(kind.fields_by_name["value"])
        return lambda entries: {_key(key): one(entries[key]) for key in sorted(entries)}
    one = _single(field)
    return (lambda values: [one(value) for value in values]) if field.is_repeated else one


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _single(field: FieldDescriptor) -> Convert:
    if field.message_type is not None:
        return _message(field.message_type)
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    if field.cpp_type in _INT64:
        return str
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _double
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return lambda value: _double(float(f"{value:.7g}"))
    return lambda value: value


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _enum(kind: EnumDescriptor) -> Convert:
    names = {number: value.name for number, value in kind.values_by_number.items()}
    return lambda value: names.get(value, value)


def _message(kind: Descriptor) -> Convert:
    if kind.full_name == _ANY:
        return _any
    if kind.full_name == _DURATION:
        return lambda value: value.ToJsonString()
    if kind.full_name in _WRAPPERS:
        return lambda value: value.value
    if kind.full_name.startswith("google.protobuf."):
        return _by_library
    return plain


def _any(value: any_pb2.Any) -> Any:
    name = value.type_url.rpartition("/")[2]
    if not name or name.startswith("google.protobuf."):
        return _by_library(value)
    return {"@type": value.type_url, **plain(_class(name).FromString(value.value))}


def _by_library(value: Message) -> Any:
    """Return values whose JSON has none of their fields, such as Struct. Protobuf's key order differs between runs."""
    return _sorted(json_format.MessageToDict(value, preserving_proto_field_name=True))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def _redact(value: dict[str, Any]) -> None:
    if "private_key" in value.get("tls_certificate", {}):
        value["tls_certificate"]["private_key"] = REDACTED
    for kind in ("generic_secret", "session_ticket_keys"):
        if kind in value:
            value[kind] = REDACTED
