"""Very many API keys: the policy server says whose key a request holds, and the identity script in Envoy judges.

The keys are rules, one for each consumer, so that a new key among 100,000 consumers is one small resource. Both ways
look a key up by its SHA-256: who does not know a key cannot choose its hash, so the time of a lookup tells nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from envoy.config.core.v3 import base_pb2
from google.protobuf.message import Message

from filters import lookups
from filters.credentials import last_second
from filters.identity import Consumer
from filters.policy import HttpFilter
from filters.rules import RuleType, Table
from protos import rules_pb2

FILTER = "xds.identity.keys"
EXTENSION = "api_key"
"""The context extension, and the metadata, of a lookup."""
LONGEST = 1024
"""Bytes of a key; nobody is asked about longer ones."""
TIMEOUT = timedelta(milliseconds=500)
_COUNTED_BY = ("x-envoy-external-address", "x-request-id")
"""The client's address, and what a rejection names, where limits are decided beside the key."""


def _message(name: str, consumer: Consumer) -> rules_pb2.Consumer:
    keys = [
        rules_pb2.ApiKey(
            sha256=bytes.fromhex(key.sha256), not_after=last_second(key.not_after) if key.not_after else 0
        )
        for key in consumer.api_keys
    ]
    return rules_pb2.Consumer(name=name, plan=consumer.plan or "", api_keys=keys)


CONSUMER = RuleType(name="consumer", message=rules_pb2.Consumer, build=_message)


def lookup_filter(rules: Iterable[Mapping[str, Any]]) -> HttpFilter:
    """The filter that asks whose key it is. It shows what holds keys by any of the rules, and what limits count by."""
    headers = {header for rule in rules for header in _holding(rule)}
    shown = {*headers, *_COUNTED_BY} if headers else headers
    return lookups.lookup_filter(FILTER, EXTENSION, TIMEOUT, shown, dynamic=True)


def _holding(rule: Mapping[str, Any]) -> Iterator[str]:
    yield from rule["headers"]
    if rule["query"]:
        yield ":path"
    if rule["cookies"]:
        yield "cookie"


def lookup(rule: Mapping[str, Any], **more: str) -> Mapping[str, Message]:
    """What a route carries: `rule` says where the key is looked for, as for the script."""
    question = json.dumps(dict(rule), sort_keys=True, separators=(",", ":"))
    return lookups.lookup(FILTER, EXTENSION, question, **more)


class Found(NamedTuple):
    """Whose key it is; `not_after` is in Unix seconds, 0 for never."""

    consumer: str
    plan: str
    not_after: int


class Keys:
    """Consumers by the SHA-256 of their keys. `current` is replaced and never changed."""

    def __init__(self) -> None:
        self.current: Mapping[bytes, Found] = {}
        self.table: Table[tuple[tuple[bytes, Found], ...]] = Table(CONSUMER, _keys, self._changed)

    def _changed(
        self,
        before: Mapping[str, tuple[tuple[bytes, Found], ...]],
        loaded: Mapping[str, tuple[tuple[bytes, Found], ...]],
        removed: Collection[str],
    ) -> None:
        current = dict(self.current)
        for name in (*loaded, *removed):
            for digest, found in before.get(name, ()):
                if current.get(digest) == found:
                    del current[digest]
        for keys in loaded.values():
            current.update(keys)
        self.current = current

    def find(self, rule: Mapping[str, Any], headers: Iterable[base_pb2.HeaderValue]) -> Found | None:
        """Whose key a request holds, whether it has expired or not; None for no key and for an unknown one."""
        key = key_of(rule, headers)
        if not key or len(key) > LONGEST:
            return None
        return self.current.get(hashlib.sha256(key).digest())


def _keys(message: rules_pb2.Consumer) -> tuple[tuple[bytes, Found], ...]:
    return tuple((key.sha256, Found(message.name, message.plan, key.not_after)) for key in message.api_keys)


def key_of(rule: Mapping[str, Any], headers: Iterable[base_pb2.HeaderValue]) -> bytes:
    """The key at the first of its places; the script has seen to it that there is only one."""
    by_name: dict[str, bytes] = {}
    for one in headers:
        by_name.setdefault(one.key, one.raw_value or one.value.encode())
    for name in rule["headers"]:
        if by_name.get(name):
            return by_name[name]
    for name in rule["query"]:
        value = _from_query(by_name.get(":path", b""), name.encode())
        if value is not None:
            return value
    for name in rule["cookies"]:
        value = _from_cookie(by_name.get("cookie", b""), name.encode())
        if value is not None:
            return value
    return b""


def _from_query(path: bytes, name: bytes) -> bytes | None:
    for pair in path.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if _unescaped(key) == name:
            return _unescaped(value)
    return None


def _unescaped(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _from_cookie(header: bytes, name: bytes) -> bytes | None:
    for pair in header.split(b";"):
        key, _, value = pair.lstrip().partition(b"=")
        if key == name:
            quoted = re.fullmatch(rb'"(.*)"\s*', value, re.DOTALL)
            return quoted[1] if quoted else value.rstrip()
    return None
