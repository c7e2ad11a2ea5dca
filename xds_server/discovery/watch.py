"""One type on one stream: the resources that were sent, those to be sent, and the one unacknowledged response.

A watch holds names and versions, never the resources themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from sys import maxsize

from xds_server.discovery.events import Acked, Nacked, Response
from xds_server.discovery.references import REFERRING
from xds_server.discovery.rejection import blamed
from xds_server.discovery.snapshot import Difference, Resource, Snapshot
from xds_server.discovery.subscription import Subscription
from xds_server.discovery.types import ResourceType

AT_ONCE, LOOSE_AT_ONCE = 500, 2000
"""The maximum number of resources in one response of several.

A larger number would make other streams wait for more than 20 ms. Resources without references are serialized faster,
so more of them fit.
"""
_name = attrgetter("name")


@dataclass(frozen=True, slots=True)
class Pending:
    """A response that the client has neither accepted nor rejected yet."""

    nonce: str
    version: str
    versions: Mapping[str, str]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """The resources that a client lacks.

    `removals` are names that it has and that no longer exist; `absent` are names that it subscribed to and that never
    existed.
    """

    changes: tuple[Resource, ...]
    removals: tuple[str, ...]
    absent: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changes or self.removals or self.absent)


@dataclass(slots=True)
class Watch:
    """The state of one type on one stream that both protocols share."""

    type: ResourceType
    subscription: Subscription
    send_singly: bool = False
    """Send each resource in a response of its own, because Envoy stops at the first bad resource of a response."""
    bisect: bool = False
    """Send the `unjudged` again at once, one at a time, until the resource that the client rejects is found."""
    sent: dict[str, str] = field(default_factory=dict)
    """The version that was sent last, by name. It stays after a rejection, so only a new version is sent again."""
    maybe_changed: set[str] = field(default_factory=set)
    """Names whose resource may differ from `sent`."""
    resends: set[str] = field(default_factory=set)
    """Names that are sent even if their version is the one in `sent`."""
    unjudged: set[str] = field(default_factory=set)
    """Names of a rejected response that Envoy did not blame. The next change makes them `suspects`."""
    suspects: set[str] = field(default_factory=set)
    """Names that are sent one at a time, if the protocol allows it, so that the bad one is found."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Names that the client blamed in its last rejection, with the client's message."""
    owes_response: bool = False
    """True if the client waits for a response even if there is nothing to send."""
    pending: Pending | None = None
    """The response that the client has not acknowledged yet."""
    nonce: str = ""

    def acknowledged(self, name: str, version: str) -> bool:
        """True if the client has accepted this version of a resource."""
        pending = self.pending is not None and name in self.pending.versions
        return not pending and name not in self.rejected and self.sent.get(name) == version

    def lacks(self, snapshot: Snapshot) -> bool:
        """True if the client has not accepted all that it subscribes to. The watch has been advanced to this snapshot."""
        if self.maybe_changed or self.resends or self.pending is not None:
            return True
        return bool(self.rejected) and any(name in snapshot[self.type] for name in self.rejected)

    @property
    def size(self) -> int:
        """The number of names that the client makes this watch store. The size of a snapshot does not count."""
        return max(len(self.subscription.names), len(self.resends))

    def advance(self, new: Snapshot, old: Snapshot | None) -> None:
        """Note the names that may differ now that `new` replaces `old`."""
        if old is None:
            self._look_at(new[self.type])
            return
        difference = new.diff(old).get(self.type)
        if difference is not None:
            self.note(difference, old)

    def note(self, difference: Difference, old: Snapshot) -> None:
        """Note the changes since `old`. Resources of a rejected response are sent again."""
        for names in (difference.changed, difference.removed):
            self.maybe_changed.update(name for name in names if self.subscription.wants(name))
        self._suspect()

    def _suspect(self) -> None:
        self.resends |= self.unjudged
        self.suspects |= self.unjudged
        self.unjudged.clear()

    def _look_at(self, names: Iterable[str]) -> None:
        wanted = set(names) if self.subscription.wildcard else self.subscription.names.intersection(names)
        self.maybe_changed |= wanted

    def resend(self, name: str) -> None:
        """Send a resource again in the same version, because the client waits for it again."""
        if name in self.sent and self.subscription.wants(name):
            self.resends.add(name)

    def work(self, snapshot: Snapshot) -> Work:
        """Return what is to be sent, and forget names that need no work.

        For large backlogs, only one batch is computed per response.
        """
        items = snapshot[self.type]
        names: Iterable[str] = self.maybe_changed | self.resends if self.resends else self.maybe_changed
        enough = self._enough if len(self.maybe_changed) > self._enough and not self.suspects else maxsize
        changes: list[Resource] = []
        removals, absent, done = [], [], []
        for name in names:
            resource = items.get(name)
            if resource is None and name in self.sent:
                removals.append(name)
            elif resource is None and name in self.resends:
                absent.append(name)
            elif resource is not None and self._lacks(resource):
                changes.append(resource)
                if len(changes) >= enough:
                    break
            else:
                done.append(name)
        for name in done:
            self._done(name)
        changes.sort(key=_name)
        return Work(tuple(changes), tuple(sorted(removals)), tuple(sorted(absent)))

    @property
    def _enough(self) -> int:
        """The number of changes to look for before the client has acknowledged."""
        return maxsize

    @property
    def at_once(self) -> int:
        """The maximum number of resources in one response of several."""
        return AT_ONCE if self.type in REFERRING else LOOSE_AT_ONCE

    def _lacks(self, resource: Resource) -> bool:
        wanted = self.subscription.wants(resource.name)
        return wanted and (resource.name in self.resends or self.sent.get(resource.name) != resource.version)

    def _done(self, name: str) -> None:
        self.maybe_changed.discard(name)
        self.resends.discard(name)

    def part(self, changes: tuple[Resource, ...]) -> tuple[Resource, ...]:
        """Return the changes that may be sent in one response: all unsuspected ones, or else a single suspect."""
        if self.send_singly:
            return changes[:1]
        if not self.suspects:
            return changes
        trusted = tuple(resource for resource in changes if resource.name not in self.suspects)
        return trusted or changes[:1]

    def _send(self, response: Response) -> Response:
        versions = {resource.name: resource.version for resource in response.resources}
        for name in response.removed:
            self.sent.pop(name, None)
        self.maybe_changed = _without(self.maybe_changed, versions, response.removed)
        self.resends = _without(self.resends, versions, response.removed)
        self.unjudged = _without(self.unjudged, versions)
        self.suspects = _without(self.suspects, versions)
        self.sent.update(versions)
        self.owes_response = False
        self.nonce = response.nonce
        self.pending = Pending(response.nonce, response.version, versions, response.removed)
        return response

    def answered(self, message: str | None) -> Acked | Nacked | None:
        """Note that the client accepted (no message) or rejected the pending response.

        Returns None if no response was pending.
        """
        pending, self.pending = self.pending, None
        if pending is None:
            return None
        for name in pending.versions:
            if not self.subscription.wants(name):
                self.sent.pop(name, None)
        if message is None:
            for name in pending.versions:
                self.rejected.pop(name, None)
            return Acked(
                type=self.type,
                version=pending.version,
                nonce=pending.nonce,
                versions=pending.versions,
                removed=pending.removed,
            )
        guilty = blamed(message, pending.versions)
        self.rejected.update(dict.fromkeys(guilty, message))
        self.unjudged |= pending.versions.keys() - guilty
        return Nacked(
            type=self.type,
            version=pending.version,
            nonce=pending.nonce,
            versions=pending.versions,
            removed=pending.removed,
            message=message,
            blamed=guilty,
        )


def fitting(changes: tuple[Resource, ...], limit: int, at_once: int) -> tuple[Resource, ...]:
    """Return the first changes that fit into `limit` bytes and `at_once` resources, at least one.

    The client gets the rest after it has acknowledged these.
    """
    changes = changes[:at_once]
    size = 0
    for count, resource in enumerate(changes):
        size += len(resource.body)
        if size > limit and count:
            return changes[:count]
    return changes


def _without(names: set[str], *gone: Iterable[str]) -> set[str]:
    """Remove names. An emptied set is replaced, because it would keep the memory of its former names."""
    names.difference_update(*gone)
    return names or set()
