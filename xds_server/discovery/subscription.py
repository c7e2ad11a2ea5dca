"""Which resources of one type a stream wants: names, the two wildcards, and nothing.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

WILDCARD = "*"


@dataclass(slots=True)
class Subscription:
    """The names of one type on one stream. `legacy` types have the old wildcard: no name given, ever."""

    legacy: bool
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    _begun: bool = False
    _named: bool = False

    def wants(self, name: str) -> bool:
        """Whether a resource belongs to the subscription."""
        return self.wildcard or name in self.names

    @property
    def purely_wildcard(self) -> bool:
        """Everything, and no name besides."""
        return self.wildcard and not self.names

    @property
    def unnamed(self) -> bool:
        """Whether no name was ever given: then no name means everything."""
        return self.legacy and not self._named

    def replace(self, names: Iterable[str]) -> tuple[set[str], set[str]]:
        """State of the world: the list is the whole new subscription. Returns what was added and dropped."""
        listed = set(names)
        before = self.names | ({WILDCARD} if self.wildcard else set())
        self._named = self._named or bool(listed)
        if not listed and self.unnamed:
            listed = {WILDCARD}
        self._begun = True
        self.wildcard = WILDCARD in listed
        self.names = listed - {WILDCARD}
        return listed - before, before - listed

    def extend(self, names: Iterable[str]) -> set[str]:
        """Add what a stale list names; what it lacks may have been asked for since. Returns what was added."""
        listed = set(names)
        if not listed:
            return set()
        everything = {WILDCARD} if self.wildcard and self._named else set()
        return self.replace(self.names | everything | listed)[0]

    def change(self, subscribe: Iterable[str], unsubscribe: Iterable[str]) -> tuple[set[str], set[str]]:
        """Delta: add and drop names. Returns both; what is subscribed again counts as added."""
        added, dropped = set(subscribe), set(unsubscribe)
        dropped -= added
        if not self._begun and not added and self.legacy:
            added = {WILDCARD}
        self._begun = True
        self.wildcard = (self.wildcard or WILDCARD in added) and WILDCARD not in dropped
        self.names = (self.names | added) - dropped - {WILDCARD}
        return added, dropped
