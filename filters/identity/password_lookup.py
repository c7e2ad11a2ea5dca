"""Passwords with slow hashes: the policy server verifies them, and the identity script in Envoy decides.

bcrypt takes 50 ms or more of a processor; see `filters.check.passwords`.
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
"""The context extension, and the metadata, of a verification."""
TIMEOUT = timedelta(seconds=5)
"""The time for which Envoy waits. It includes the verifications that are earlier in the queue."""


def lookup_filter() -> HttpFilter:
    """The filter that has passwords verified."""
    return policy_server.lookup_filter(FILTER, EXTENSION, TIMEOUT, ("authorization",))


def lookup(list_name: str) -> Mapping[str, Message]:
    """The filter configuration of a route: the list of its users."""
    return policy_server.lookup(FILTER, EXTENSION, list_name)


def without_slow(users: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names and hashes for Envoy. Slow hashes are replaced by their prefix."""
    for name, one in users.items():
        yield name, SLOW if one.startswith(SLOW) else one


def slow(users: Mapping[str, str], others: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Names with bcrypt hashes, and the names that Envoy verifies, including the `others`, with an empty hash."""
    hashes = {name: one.removeprefix(SLOW) if one.startswith(SLOW) else "" for name, one in users.items()}
    return tuple(sorted({**hashes, **dict.fromkeys(others, "")}.items()))


def _message(name: str, users: tuple[tuple[str, str], ...]) -> rules_pb2.Users:
    return rules_pb2.Users(
        name=name, users=[rules_pb2.User(name=user, bcrypt=entry) for user, entry in users]
    )


USERS = RuleType(name="users", message=rules_pb2.Users, build=_message)
