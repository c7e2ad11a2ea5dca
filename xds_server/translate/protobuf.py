"""Small steps that every translation makes: packing and durations."""

from __future__ import annotations

from datetime import timedelta

from envoy.config.core.v3 import config_source_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message


def packed(message: Message) -> any_pb2.Any:
    """Any of a message, serialized deterministically. An Any stays what it is."""
    if isinstance(message, any_pb2.Any):
        return message
    url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
    return any_pb2.Any(type_url=url, value=message.SerializeToString(deterministic=True))


def duration(value: timedelta) -> duration_pb2.Duration:
    """A duration as Envoy takes it."""
    seconds = value.days * 86400 + value.seconds
    return duration_pb2.Duration(seconds=seconds, nanos=value.microseconds * 1000)


def fill(message: duration_pb2.Duration, value: timedelta) -> None:
    """Write a duration in place, where a copy would be felt."""
    message.SetInParent()
    message.seconds, message.nanos = value.days * 86400 + value.seconds, value.microseconds * 1000


def uint32(value: int) -> wrappers_pb2.UInt32Value:
    """An optional number."""
    return wrappers_pb2.UInt32Value(value=value)


def boolean(value: bool) -> wrappers_pb2.BoolValue:
    """An optional flag."""
    return wrappers_pb2.BoolValue(value=value)


def ads() -> config_source_pb2.ConfigSource:
    """Ask the control plane, over the stream that is there already."""
    source = config_source_pb2.ConfigSource
    return source(ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3)
