"""Envoy's message OAuth2PerRoute, which the installed xds-protos does not have yet."""

from __future__ import annotations

from envoy.extensions.filters.http.oauth2.v3 import oauth_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

_PACKAGE = oauth_pb2.DESCRIPTOR.package


def _oauth2_per_route() -> type[Message]:
    pool = descriptor_pool.Default()
    name = f"{_PACKAGE}.OAuth2PerRoute"
    try:
        found = pool.FindMessageTypeByName(name)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto(
            name="xds/newer/oauth2_per_route.proto",
            package=_PACKAGE,
            syntax="proto3",
            dependency=[oauth_pb2.DESCRIPTOR.name],
        )
        field = file.message_type.add(name="OAuth2PerRoute").field.add(name="config", number=1)
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        field.type_name = f".{_PACKAGE}.OAuth2Config"
        pool.AddSerializedFile(file.SerializeToString())
        found = pool.FindMessageTypeByName(name)
    return message_factory.GetMessageClass(found)


OAuth2PerRoute = _oauth2_per_route()
"""The OAuth2 configuration of one route (Envoy 1.38): ``config``."""
