"""envoy-data-plane as the second, independent decoder of what we put on the wire."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

MISSING = "xds.type.v3.TypedStruct"
"""It lacks this message. Envoy itself reads the fields in it, because the golden cases are validated by Envoy."""


def disagreements(message: Message) -> list[str]:
    """Where the second decoder reads a message, and every message packed in it, in another way."""
    return [text for one in _parts(message) if one.DESCRIPTOR.full_name != MISSING for text in _compare(one)]


def _compare(message: Message) -> Iterator[str]:
    name = message.DESCRIPTOR.full_name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fields that the newest schema would replace
        decoded = _kind(name)().parse(message.SerializeToString(deterministic=True))
        again = type(message).FromString(bytes(decoded))
    yield from (f"{name}: {path} is unknown to it" for path in _unknown(decoded, name))
    if again != message:
        yield f"{name}: {again} is not {message}"


def _kind(full_name: str) -> Any:
    package, _, name = full_name.rpartition(".")
    outer: list[str] = []
    while package.rpartition(".")[2][:1].isupper():
        package, _, before = package.rpartition(".")
        outer.insert(0, before)
    module = importlib.import_module(f"envoy_data_plane.{package}")
    wanted = "".join([*outer, name]).lower()
    return getattr(module, next(one for one in dir(module) if one.lower() == wanted))


def _unknown(value: Any, path: str) -> Iterator[str]:
    if getattr(value, "_unknown_fields", b""):
        yield path
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _unknown(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _unknown(one, path)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _unknown(one, f"{path}[{key}]")


def _parts(message: Message) -> Iterator[Message]:
    """The message, and every message that an Any within it holds."""
    yield message
    for packed in _anys(message):
        yield from _parts(_opened(packed))


def _opened(packed: any_pb2.Any) -> Message:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.type_url.rpartition("/")[2])
    return message_factory.GetMessageClass(descriptor).FromString(packed.value)


def _anys(message: Message) -> Iterator[any_pb2.Any]:
    if isinstance(message, any_pb2.Any):
        if message.type_url:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            values = list(value.values()) if inner.message_type else []
        else:
            values = list(value) if field.is_repeated else [value]
        for one in values:
            yield from _anys(one)
