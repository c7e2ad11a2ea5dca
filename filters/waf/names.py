"""The rule by which the policy server inspects requests, and names that Envoy's configuration shares with it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from filters.processing.phases import Phase
from filters.rules import RuleType
from protos import rules_pb2

BLOCKED, UNAVAILABLE = "waf_blocked", "waf_unavailable"
"""The reasons of a rejected request, and of one that could not be inspected."""
TITLES = {
    BLOCKED: "The web application firewall rejected the request",
    UNAVAILABLE: "The request could not be inspected",
}


class Excluded(NamedTuple):
    """Rules with an id or a tag that do not run, or that leave out a target."""

    rule: int | None
    tag: str | None
    target: str | None


class WafSource(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests of some routes are inspected.

    Routes with equal settings share a rule. `timeout` is in seconds. If `lenient`, a request passes that could not be
    inspected. Without `body` only the headers are inspected.
    """

    paranoia: int
    threshold: int
    blocks: bool
    lenient: bool
    timeout: float
    body: bool
    exclude: tuple[Excluded, ...] = ()

    @property
    def phases(self) -> frozenset[Phase]:
        """The phases of an exchange in which requests are inspected."""
        return frozenset((Phase.REQUEST_HEADERS, *((Phase.REQUEST_BODY,) if self.body else ())))

    @property
    def content(self) -> bytes:
        """The settings as JSON."""
        return msgspec.json.encode(self)

    @property
    def name(self) -> str:
        """A hash of the content."""
        return hashlib.sha256(self.content).hexdigest()[:16]


def _message(name: str, value: WafSource) -> rules_pb2.Waf:
    return rules_pb2.Waf(name=name, content=value.content)


WAF = RuleType(name="waf", message=rules_pb2.Waf, build=_message)
