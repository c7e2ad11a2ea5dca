"""The resources of one type that a stream subscribes to: names, the two wildcards, or nothing.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

WILDCARD = "*"


@dataclass(slots=True)
class Subscription:
    """The subscribed names of one type on one stream.

    `legacy` types have the old wildcard: a stream that never gave a name gets all resources.
    """

    legacy: bool
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    _begun: bool = False
    _named: bool = False

    def wants(self, name: str) -> bool:
        """True if the resource belongs to the subscription."""
        return self.wildcard or name in self.names

    @property
    def purely_wildcard(self) -> bool:
        """True if the subscription is a wildcard and has no names in addition."""
        return self.wildcard and not self.names

    @property
    def unnamed(self) -> bool:
        """True if the client never gave a name for a `legacy` type: then an empty list means all resources."""
        return self.legacy and not self._named

    def replace(self, names: Iterable[str]) -> tuple[set[str], set[str]]:
        """Replace the subscription by a state-of-the-world list. Returns the added and the dropped names."""
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
        """Add the names of a stale list. Returns the added names.

        Names that the list lacks stay, because the client may have subscribed to them since.
        """
        listed = set(names)
        if not listed:
            return set()
        everything = {WILDCARD} if self.wildcard and self._named else set()
        return self.replace(self.names | everything | listed)[0]

    def change(self, subscribe: Iterable[str], unsubscribe: Iterable[str]) -> tuple[set[str], set[str]]:
        """Add and drop names by the delta protocol. Returns both; a name that is subscribed again counts as added."""
        added, dropped = set(subscribe), set(unsubscribe)
        dropped -= added
        if not self._begun and not added and self.legacy:
            added = {WILDCARD}
        self._begun = True
        self.wildcard = (self.wildcard or WILDCARD in added) and WILDCARD not in dropped
        self.names = (self.names | added) - dropped - {WILDCARD}
        return added, dropped
