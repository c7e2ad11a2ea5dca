"""Rules for tests: a type whose message is one word, a table that refuses the word `bad`, and snapshots of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import wrappers_pb2

from filters.rules import Refused, RuleType, Table
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import custom

WORD = RuleType(
    name="word",
    message=wrappers_pb2.StringValue,
    build=lambda _, value: wrappers_pb2.StringValue(value=value),
)
NUMBER = RuleType(
    name="number",
    message=wrappers_pb2.Int64Value,
    build=lambda _, value: wrappers_pb2.Int64Value(value=value),
)


def load(message: wrappers_pb2.StringValue) -> str:
    if message.value == "bad":
        raise Refused("bad word")
    return message.value


def table() -> Table[str]:
    return Table(WORD, load)


def snapshot(words: Mapping[str, str], **more: int) -> Snapshot:
    """A snapshot of words by name, and of numbers."""
    return Snapshot.of(
        {
            _custom(WORD): [Resource.of(WORD.build(name, word), name) for name, word in words.items()],
            _custom(NUMBER): [Resource.of(NUMBER.build(name, one), name) for name, one in more.items()],
        }
    )


def _custom(type_: RuleType) -> Any:
    return custom(type_.name, type_.full_name)
