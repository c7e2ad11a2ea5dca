"""Very many API keys: the policy server looks up the owner of a key, and the identity script in Envoy decides.

The keys are rules, one for each consumer, so a new key among 100,000 consumers is one small resource. Both Envoy and
the policy server look up a key by its SHA-256. A client that does not know a key cannot choose its hash, so the time of
a lookup reveals nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

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
