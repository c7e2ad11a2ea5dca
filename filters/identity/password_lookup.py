"""Passwords with slow hashes: the policy server verifies them, and the identity script in Envoy judges.

bcrypt takes 50 ms and more of a processor. It runs in a few threads, and a password that was right is known again by a
keyed digest, so that only the first request of a user takes that long. An unknown name takes as long as a wrong password.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

from google.protobuf.message import Message

from filters import policy_server
from filters.identity.htpasswd import SLOW
from filters.policy import HttpFilter
from filters.rules import RuleType
from protos import rules_pb2

FILTER = "xds.identity.passwords"
EXTENSION = "password"
"""The context extension, and the metadata, of a question about a password."""
TIMEOUT = timedelta(seconds=5)
"""How long Envoy waits: for those that are verified before, too."""


def lookup_filter() -> HttpFilter:
    """The filter that asks whose password it is."""
    return policy_server.lookup_filter(FILTER, EXTENSION, TIMEOUT, ("authorization",))


def lookup(list_name: str) -> Mapping[str, Message]:
    """What a route carries: the list of the users who count there."""
    return policy_server.lookup(FILTER, EXTENSION, list_name)


def without_slow(users: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names and hashes for Envoy, which is not told the slow ones."""
    for name, one in users.items():
        yield name, SLOW if one.startswith(SLOW) else one


def slow(users: Mapping[str, str], others: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Names with bcrypt hashes, and with none those whom Envoy verifies, among them the `others`."""
    hashes = {name: one.removeprefix(SLOW) if one.startswith(SLOW) else "" for name, one in users.items()}
    return tuple(sorted({**hashes, **dict.fromkeys(others, "")}.items()))


def _message(name: str, users: tuple[tuple[str, str], ...]) -> rules_pb2.Users:
    return rules_pb2.Users(
        name=name, users=[rules_pb2.User(name=user, bcrypt=entry) for user, entry in users]
    )


USERS = RuleType(name="users", message=rules_pb2.Users, build=_message)
