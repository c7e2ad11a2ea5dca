"""The lookup of an API key in the policy server, which has the keys if there are very many.

The lookup is by SHA-256. A client that does not know a key cannot choose its hash, so the time of a lookup reveals
nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from envoy.config.core.v3 import base_pb2

from filters.identity.key_lookup import API, BUCKETS, CONSUMER, SUBSCRIBERS, SUBSCRIPTIONS
from filters.identity.script_rules import LONGEST_CREDENTIAL
from filters.rules import Table
from protos import rules_pb2


class KeyOwner(NamedTuple):
    """The consumer and the plan of a key. `not_after` is in Unix seconds, 0 for a key without an end.

    `apis` are those of a subscription, None for a consumer of the gateway's files, who may call all. `covered` is false
    if they lack the API of the route.
    """

    consumer: str
    plan: str
    not_after: int
    apis: tuple[str, ...] | None = None
    covered: bool = True


class NotComplete(Exception):  # noqa: N818 - an answer
    """The key is unknown, and may belong to a subscription that has not arrived yet."""


class KeyIndex:
    """Consumers by the SHA-256 of their keys. `current` is replaced as a whole and never changed.

    If it `follows` a marketplace, there are subscriptions too. `subscribed` changes in place, key by key, because there
    may be many keys and many changes; a new key is added before an old one is removed.
    """

    def __init__(self, *, follows: bool = False) -> None:
        self.current: Mapping[bytes, KeyOwner] = {}
        self.subscribed: dict[bytes, KeyOwner] = {}
        self.follows = follows
        self.table: Table[tuple[tuple[bytes, KeyOwner], ...]] = Table(CONSUMER, _keys, self._changed)
        self.subscribers: Table[Mapping[bytes, KeyOwner]] = Table(SUBSCRIBERS, _bucket, self._subscribed)

    def _subscribed(
        self,
        before: Mapping[str, Mapping[bytes, KeyOwner]],
        loaded: Mapping[str, Mapping[bytes, KeyOwner]],
        removed: Collection[str],
    ) -> None:
        for name in (*loaded, *removed):
            new = loaded.get(name, {})
            self.subscribed.update(new)
            for digest in before.get(name, {}).keys() - new.keys():
                self.subscribed.pop(digest, None)

    def _changed(
        self,
        before: Mapping[str, tuple[tuple[bytes, KeyOwner], ...]],
        loaded: Mapping[str, tuple[tuple[bytes, KeyOwner], ...]],
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

    def find(self, rule: Mapping[str, Any], headers: Iterable[base_pb2.HeaderValue]) -> KeyOwner | None:
        """The owner of a request's key, even if the key has expired. None without a key, and for an unknown key.

        Raises NotComplete.
        """
        key = key_of(rule, headers)
        if not key or len(key) > LONGEST_CREDENTIAL:
            return None
        digest = hashlib.sha256(key).digest()
        owner = self.current.get(digest)
        if owner is not None or not rule.get(SUBSCRIPTIONS):
            return owner
        subscriber = self.subscribed.get(digest)
        if subscriber is not None:
            return subscriber._replace(covered=rule[API] in (subscriber.apis or ()))
        if self.follows and len(self.subscribers.current) < BUCKETS:
            raise NotComplete
        return None


def _keys(message: rules_pb2.Consumer) -> tuple[tuple[bytes, KeyOwner], ...]:
    return tuple(
        (key.sha256, KeyOwner(message.name, message.plan, key.not_after)) for key in message.api_keys
    )


def _bucket(message: rules_pb2.SubscriberBucket) -> Mapping[bytes, KeyOwner]:
    return {
        key.sha256: KeyOwner(one.name, one.plan, key.not_after, tuple(one.apis))
        for one in message.subscribers
        for key in one.api_keys
    }


def key_of(rule: Mapping[str, Any], headers: Iterable[base_pb2.HeaderValue]) -> bytes:
    """The key at the first of its places. The identity script rejects a request with more than one key."""
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
