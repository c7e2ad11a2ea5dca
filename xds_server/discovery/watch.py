"""One type on one stream: what the client was sent, what is to be sent, and the one response it has not answered.

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
"""Resources in one response of parts: to look through and join more would keep other streams waiting for over 20 ms.

What refers to nothing is joined faster.
"""
_name = attrgetter("name")


@dataclass(frozen=True, slots=True)
class Pending:
    """A response that the client has not answered."""

    nonce: str
    version: str
    versions: Mapping[str, str]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What a client lacks. `removals` are names that it holds; `absent` it asked for and never had."""

    changes: tuple[Resource, ...]
    removals: tuple[str, ...]
    absent: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changes or self.removals or self.absent)


@dataclass(slots=True)
class Watch:
    """What a stream knows of one type: the state that both protocols share."""

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
    """Whether the client waits for a response even if there is nothing to send."""
    pending: Pending | None = None
    """The response that the client has not acknowledged yet."""
    nonce: str = ""

    @property
    def size(self) -> int:
        """How many names the client has it remember; what a snapshot has is not its doing."""
        return max(len(self.subscription.names), len(self.resends))

    def advance(self, new: Snapshot, old: Snapshot | None) -> None:
        """Note what may differ now that `new` takes the place of `old`."""
        if old is None:
            self._look_at(new[self.type])
            return
        difference = new.diff(old).get(self.type)
        if difference is not None:
            self.note(difference, old)

    def note(self, difference: Difference, old: Snapshot) -> None:
        """Note what changed since `old`, and that what stood in a rejected response is due again."""
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
        """Send a resource again though its version is the same: the client waits for it anew."""
        if name in self.sent and self.subscription.wants(name):
            self.resends.add(name)

    def work(self, snapshot: Snapshot) -> Work:
        """What is to be sent; what turned out to be no work is forgotten.

        Of very much it is a part: a client that comes for 100,000 resources is not looked through for each response.
        """
        items = snapshot[self.type]
        names: Iterable[str] = self.maybe_changed | self.resends if self.resends else self.maybe_changed
        enough = self._enough if len(self.maybe_changed) > self._enough and not self.suspects else maxsize
        changes: list[Resource] = []
        removals, absent, done = [], [], []
        for name in names:
            one = items.get(name)
            if one is None and name in self.sent:
                removals.append(name)
            elif one is None and name in self.resends:
                absent.append(name)
            elif one is not None and self._lacks(one):
                changes.append(one)
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
        """How many changes are worth looking for before the client has answered."""
        return maxsize

    @property
    def at_once(self) -> int:
        """How many resources one response of parts has at most."""
        return AT_ONCE if self.type in REFERRING else LOOSE_AT_ONCE

    def _lacks(self, one: Resource) -> bool:
        wanted = self.subscription.wants(one.name)
        return wanted and (one.name in self.resends or self.sent.get(one.name) != one.version)

    def _done(self, name: str) -> None:
        self.maybe_changed.discard(name)
        self.resends.discard(name)

    def part(self, changes: tuple[Resource, ...]) -> tuple[Resource, ...]:
        """What may go together: all that are above suspicion, else one of the others."""
        if self.send_singly:
            return changes[:1]
        if not self.suspects:
            return changes
        trusted = tuple(one for one in changes if one.name not in self.suspects)
        return trusted or changes[:1]

    def _send(self, response: Response) -> Response:
        versions = {one.name: one.version for one in response.resources}
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
        """The client accepted (no message) or rejected the pending response; None when none was pending."""
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
    """As many as the limit of bytes and `at_once` allow, at least one: the rest follows when these are acknowledged."""
    changes = changes[:at_once]
    size = 0
    for count, one in enumerate(changes):
        size += len(one.body)
        if size > limit and count:
            return changes[:count]
    return changes


def _without(names: set[str], *gone: Iterable[str]) -> set[str]:
    """A new set where it is emptied, since that would keep the memory of what it once held."""
    names.difference_update(*gone)
    return names or set()
