"""Helpers of every translation: packing and durations."""

from __future__ import annotations

from datetime import timedelta

from envoy.config.core.v3 import config_source_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message


def packed(message: Message) -> any_pb2.Any:
    """Return a message as an Any, serialized deterministically. An Any is returned unchanged."""
    if isinstance(message, any_pb2.Any):
        return message
    url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
    return any_pb2.Any(type_url=url, value=message.SerializeToString(deterministic=True))


def duration(value: timedelta) -> duration_pb2.Duration:
    """Return a duration in Envoy's form."""
    seconds = value.days * 86400 + value.seconds
    return duration_pb2.Duration(seconds=seconds, nanos=value.microseconds * 1000)


def fill(message: duration_pb2.Duration, value: timedelta) -> None:
    """Write a duration in place, in code where copies would cost too much."""
    message.SetInParent()
    message.seconds, message.nanos = value.days * 86400 + value.seconds, value.microseconds * 1000


def uint32(value: int) -> wrappers_pb2.UInt32Value:
    """Return an optional number."""
    return wrappers_pb2.UInt32Value(value=value)


def uint64(value: int) -> wrappers_pb2.UInt64Value:
    """Return a wrapped number of 64 bits."""
    return wrappers_pb2.UInt64Value(value=value)


def boolean(value: bool) -> wrappers_pb2.BoolValue:
    """Return an optional flag."""
    return wrappers_pb2.BoolValue(value=value)


def ads() -> config_source_pb2.ConfigSource:
    """Return a source that means the control plane, over the existing stream."""
    source = config_source_pb2.ConfigSource
    return source(ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3)
