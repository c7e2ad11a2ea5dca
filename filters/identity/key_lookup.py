"""Very many API keys: the policy server looks up the owner of a key, and the identity script in Envoy decides.

The keys are rules, one for each consumer, so a new key among 100,000 consumers is one small resource. Both Envoy and
the policy server look up a key by its SHA-256. A client that does not know a key cannot choose its hash, so the time of
a lookup reveals nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from google.protobuf.message import Message

from filters import policy_server
from filters.model.identity import Consumer, last_second
from filters.policy import HttpFilter
from filters.rules import RuleType
from protos import rules_pb2

FILTER = "xds.identity.keys"
EXTENSION = "api_key"
"""The context extension, and the metadata, of a lookup."""
TIMEOUT = timedelta(milliseconds=500)
_COUNTED_BY = ("x-envoy-external-address", "x-request-id")
"""The client's address, and the request's id for the body of a rejection, if the lookup decides limits too."""


def _message(name: str, consumer: Consumer) -> rules_pb2.Consumer:
    keys = [
        rules_pb2.ApiKey(
            sha256=bytes.fromhex(key.sha256), not_after=last_second(key.not_after) if key.not_after else 0
        )
        for key in consumer.api_keys
    ]
    return rules_pb2.Consumer(name=name, plan=consumer.plan or "", api_keys=keys)


CONSUMER = RuleType(name="consumer", message=rules_pb2.Consumer, build=_message)
BUCKETS = 1024
"""The number of resources over which subscriptions are spread. A key of 100,000 changes one of some 10 kB."""


def bucket_of(consumer: str) -> int:
    """The number of the bucket of a subscription, by its consumer."""
    return zlib.crc32(consumer.encode()) % BUCKETS


def _bucket(name: str, subscribers: Iterable[Subscriber]) -> rules_pb2.SubscriberBucket:
    bucket = rules_pb2.SubscriberBucket(name=name)
    for one in sorted(subscribers):
        keys = [rules_pb2.ApiKey(sha256=sha256, not_after=not_after) for sha256, not_after in one.keys]
        bucket.subscribers.add(name=one.consumer, plan=one.plan, apis=one.apis, api_keys=keys)
    return bucket


SUBSCRIBERS = RuleType(name="subscribers", message=rules_pb2.SubscriberBucket, build=_bucket)


class Subscriber(NamedTuple):
    """A subscription of the marketplace: its keys by SHA-256, each with its end in Unix seconds or 0."""

    consumer: str
    plan: str
    apis: tuple[str, ...]
    keys: tuple[tuple[bytes, int], ...]


API, SUBSCRIPTIONS = "api", "subscriptions"
"""Keys of a rule: the API of the route, empty for none, and true if the gateway has subscriptions."""


def with_api(rule: Mapping[str, Any], api: str | None) -> Mapping[str, Any]:
    """The rule of a route of a gateway with subscriptions, which may call the API only if they have it."""
    return {**rule, API: api or "", SUBSCRIPTIONS: True}


def lookup_filter(rules: Iterable[Mapping[str, Any]]) -> HttpFilter:
    """The filter that looks up keys. It sends the headers that may contain keys by the rules, and those of limits."""
    headers = {header for rule in rules for header in _holding(rule)}
    shown = {*headers, *_COUNTED_BY} if headers else headers
    return policy_server.lookup_filter(FILTER, EXTENSION, TIMEOUT, shown, dynamic=True)


def _holding(rule: Mapping[str, Any]) -> Iterator[str]:
    yield from rule["headers"]
    if rule["query"]:
        yield ":path"
    if rule["cookies"]:
        yield "cookie"


def lookup(rule: Mapping[str, Any], **more: str) -> Mapping[str, Message]:
    """The filter configuration of a route. `rule` has the places of the key, as for the script."""
    question = json.dumps(dict(rule), sort_keys=True, separators=(",", ":"))
    return policy_server.lookup(FILTER, EXTENSION, question, **more)
