"""Resources as plain values for people; private keys are left out."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import SECRET, ResourceType

REDACTED = "[redacted]"


def decoded(type_: ResourceType, resource: Resource) -> Message:
    """The message of a resource."""
    kind = message_factory.GetMessageClass(Default().FindMessageTypeByName(type_.message))
    return kind.FromString(resource.body)


def plain(message: Message) -> dict[str, Any]:
    """A message as plain values, with Envoy's field names; mappings are plain ones, as YAML wants them."""
    value: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {key: _plain(one) for key, one in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def readable(type_: ResourceType, resource: Resource) -> dict[str, Any]:
    """A resource as plain values, with Envoy's field names."""
    value = plain(decoded(type_, resource))
    if type_ is SECRET:
        _redact(value)
    return value


def _redact(value: dict[str, Any]) -> None:
    if "private_key" in value.get("tls_certificate", {}):
        value["tls_certificate"]["private_key"] = REDACTED
    for kind in ("generic_secret", "session_ticket_keys"):
        if kind in value:
            value[kind] = REDACTED
