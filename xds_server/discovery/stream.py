"""One stream in either protocol, for all types (ADS) or for one: its watches, their order, and the two phases.

Make before break: clusters, endpoints and secrets are sent first, and the client acknowledges them before it gets the
listeners and routes that refer to them. Resources that are no longer referred to are removed after the client has
acknowledged those listeners and routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from xds_server.discovery import types
from xds_server.discovery.delta import DeltaWatch
from xds_server.discovery.events import (
    Acked,
    Nacked,
    Overdue,
    ProtocolViolation,
    Received,
    Response,
    Subscribed,
)
from xds_server.discovery.node import Node
from xds_server.discovery.references import REFERRING, references
from xds_server.discovery.snapshot import Reference, Snapshot
from xds_server.discovery.sotw import SotwWatch
from xds_server.discovery.subscription import Subscription
from xds_server.discovery.types import ResourceType
from xds_server.discovery.watch import Work

ENVOY = "envoy"
"""Envoy's name for itself (``user_agent_name``)."""


class Protocol(Enum):
    """The two variants of the protocol."""

    SOTW = "sotw"
    DELTA = "delta"


_WATCHES: dict[Protocol, type[DeltaWatch | SotwWatch]] = {
    Protocol.SOTW: SotwWatch,
    Protocol.DELTA: DeltaWatch,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """The costs that a stream may cause, and how long it waits. Times are in seconds."""

    ack_timeout: float = 5.0
    """Responses that wait for an acknowledgement are sent without it after this time."""
    removal_delay: float = 1.0
    """The time between the acknowledgement of new routes and the removal of resources that only the old routes used.
    Requests that chose their route earlier still arrive there.
    """
    resume_window: float = 0.05
    """A client that reconnects names all the types that it has in this time, before it gets a response."""
    first_request_timeout: float = 30.0
    """The stream ends if its first request has not arrived in this time."""
    write_timeout: float = 60.0
    """The stream ends if the client has not read a response in this time."""
    response: int = 1 << 20
    """Bytes of one delta response. A resource is never split."""
    types: int = 64
    """Types that a client may subscribe to."""
    names: int = 100_000
    """Names that a client may subscribe to."""
    node: int = 1 << 18
    """Bytes of the client's node."""
    bisect: bool = False
    """A delta stream finds the bad resource of a rejected response at once: it sends the resources that Envoy did
    not blame again, one at a time. Without it, that waits for the next change."""


class Stream:
    """The state of one stream. Call `receive` with each request, and `responses` for what to send."""

    def __init__(
        self, protocol: Protocol, *, only: ResourceType | None = None, limits: StreamLimits | None = None
    ) -> None:
        self.protocol = protocol
        self.only = only
        self.limits = limits or StreamLimits()
        self.node: Node | None = None
        self.watches: dict[ResourceType, DeltaWatch | SotwWatch] = {}
        self.overdue: list[Overdue] = []
        self.deadline: float | None = None
        self._snapshot: Snapshot | None = None
        self._nonce = 0
        self._awaited: dict[Reference, Reference] = {}  # with the cluster that makes the client request it
        self._resumed = False
        self._resumed_at: float | None = None
        self._blocked: set[str] = set()
        self._again = False
        self._since: dict[str, float] = {}
        self._quiet_since: float | None = None

    def receive(self, request: Any) -> Received:
        """Handle a DiscoveryRequest or DeltaDiscoveryRequest."""
        if self.node is None:
            if request.node.ByteSize() > self.limits.node:
                return ProtocolViolation(message=f"a node of more than {self.limits.node} bytes")
            self.node = Node.of(request.node)
        begun = set(self.watches)
        watch = self._watch(request.type_url)
        if isinstance(watch, ProtocolViolation):
            return watch
        event = watch.receive(request, self._snapshot)
        if watch.size > self.limits.names:
            return ProtocolViolation(
                message=f"more than {self.limits.names} names of {watch.type.name} on one stream"
            )
        self._settle(watch.type, event)
        if watch.type not in begun:
            self._resume(watch)
        return event

    def _resume(self, watch: DeltaWatch | SotwWatch) -> None:
        """Send the awaited resources of this type again, whatever the client has from an earlier stream."""
        self._resumed = self._resumed or watch.returning
        for type_, name in self._awaited:
            if type_ == watch.type:
                watch.resend(name)

    def _watch(self, url: str) -> DeltaWatch | SotwWatch | ProtocolViolation:
        if self.only is not None and url not in ("", self.only.url):
            return ProtocolViolation(message=f"this stream serves {self.only.url}, not {url}")
        if self.only is None and not url:
            return ProtocolViolation(
                message="type_url is missing: an aggregated stream needs it in every request"
            )
        if self.only is None and not (url.startswith(types.PREFIX) and len(url) > len(types.PREFIX)):
            return ProtocolViolation(
                message=f"type_url is {types.PREFIX} and the name of a message, not {url}"
            )
        type_ = self.only or types.of_url(url)
        if type_ not in self.watches:
            if len(self.watches) >= self.limits.types:
                return ProtocolViolation(message=f"more than {self.limits.types} types on one stream")
            send_singly = type_.stops_at_first and self.node is not None and self.node.agent == ENVOY
            added = _WATCHES[self.protocol](
                type_, Subscription(type_.whole), send_singly=send_singly, bisect=self.limits.bisect
            )
            self.watches = dict(sorted([*self.watches.items(), (type_, added)], key=lambda one: one[0].order))
        return self.watches[type_]

    def _settle(self, type_: ResourceType, event: Received) -> None:
        match event:
            case Acked():
                self._forget((type_, name) for name in event.versions)
            case Nacked():
                # Envoy applies the resources that it does not blame; if it blames none, it applied nothing
                rejected = {(type_, name) for name in event.blamed or event.versions}
                self._forget((type_, name) for name in event.versions)
                self._forget([awaited for awaited, owner in self._awaited.items() if owner in rejected])
            case Subscribed():
                self._forget((type_, name) for name in event.dropped)

    def _forget(self, awaited: Iterable[Reference]) -> None:
        for reference in awaited:
            self._awaited.pop(reference, None)

    def again(self, type_: ResourceType, names: Iterable[str]) -> None:
        """Send resources again in the version that the client rejected: it may have by now what it lacked then."""
        for name in names:
            self.watches[type_].resend(name)

    @property
    def busy(self) -> bool:
        """True if the client lacks a resource or waits for one, now or later."""
        return any(
            watch.maybe_changed or watch.resends or watch.owes_response for watch in self.watches.values()
        )

    def lacks(self, snapshot: Snapshot) -> tuple[ResourceType, ...]:
        """Return the types of which the client has not accepted yet all that it subscribes to in this snapshot."""
        if snapshot is not self._snapshot:
            return tuple(self.watches)
        return tuple(type_ for type_, watch in self.watches.items() if watch.lacks(snapshot))

    def has_all(self, snapshot: Snapshot) -> bool:
        """True if the client has accepted all that it subscribes to in this snapshot."""
        if snapshot is not self._snapshot:
            return not self.watches
        return not any(watch.lacks(snapshot) for watch in self.watches.values())

    def responses(
        self, snapshot: Snapshot | None, now: float, earlier: Iterable[Snapshot] = ()
    ) -> list[Response]:
        """Return the responses to send now, in this order; none if there is no snapshot.

        `now` is in seconds on a monotonic clock. `earlier` are the previous snapshots, the newest first: a
        state-of-the-world client that reconnects has one of them. Call this after every request, after every
        publication, and at `deadline`.
        """
        self.deadline = None
        if snapshot is None or not self._gathered(now):
            return []
        if snapshot is not self._snapshot:
            self._advance(snapshot)
        for watch in self.watches.values() if self._resumed else ():
            watch.recall(snapshot, earlier)
        found: list[Response] = []
        self._blocked.clear()
        self._again = True
        while self._again:  # a response may make the client wait for a type that is earlier in the order
            self._again = False
            found += self._round(snapshot, now)
        if self._since:
            self._since = {gate: since for gate, since in self._since.items() if gate in self._blocked}
        return found

    def _gathered(self, now: float) -> bool:
        """True if a client that reconnects with state has had time to name all its types.

        It requests one type after another, and the resources to keep depend on all of them.
        """
        if not self._resumed or self.only is not None:
            return True
        return self._past(self._since_resumed(now) + self.limits.resume_window, now)

    def _since_resumed(self, now: float) -> float:
        if self._resumed_at is None:
            self._resumed_at = now
        return self._resumed_at

    def _advance(self, snapshot: Snapshot) -> None:
        for watch in self.watches.values():
            watch.advance(snapshot, self._snapshot)
        self._snapshot = snapshot

    def _round(self, snapshot: Snapshot, now: float) -> Iterator[Response]:
        makes: bool | None = None
        for type_, watch in self.watches.items():
            if watch.pending is not None:
                continue
            work = watch.work(snapshot)
            if not (work or watch.owes_response):
                continue
            if type_.order < types.BREAKS_FROM:
                allowed = True, not work.removals or self._unused(snapshot, now)
            else:
                makes = self._made(snapshot, now) if makes is None else makes
                allowed = makes, makes
            response = watch.take(snapshot, work, str(self._nonce + 1), *allowed, self.limits.response)
            if response is not None:
                self._nonce += 1
                self._follow(response, work, snapshot)
                yield response

    def _follow(self, response: Response, work: Work, snapshot: Snapshot) -> None:
        """Note that the client now waits for what the changed resources refer to, even if it already has it."""
        if response.type.order >= types.BREAKS_FROM:
            self._quiet_since = None
        if response.type not in REFERRING:
            return
        sent = {resource.name for resource in response.resources}
        removed = {(response.type, name) for name in response.removed}
        self._forget(
            [reference for reference, owner in self._awaited.items() if removed and owner in removed]
        )
        for resource in work.changes:
            for reference in references(response.type, resource) if resource.name in sent else ():
                if reference[1] not in snapshot[reference[0]]:
                    continue
                if reference[0] in self.watches:
                    self.watches[reference[0]].resend(reference[1])
                    self._again = True
                if response.type.order < types.BREAKS_FROM:
                    self._awaited[reference] = (response.type, resource.name)

    def _made(self, snapshot: Snapshot, now: float) -> bool:
        """True if the client has all that listeners and routes refer to, or if the wait has timed out."""
        if next(self._blockers(snapshot), None) is not None:
            if not self._expired("makes", self._blockers(snapshot), now):
                return False
            self._awaited.clear()
        return True

    def _blockers(self, snapshot: Snapshot) -> Iterator[str]:
        for type_, watch in self._watches(makes=True):
            if watch.pending is not None:
                yield type_.name
        for (type_, name), owner in self._awaited.items():
            if name in snapshot[type_] and owner[1] in snapshot[owner[0]]:
                yield f"{type_.name} {name}"

    def _unused(self, snapshot: Snapshot, now: float) -> bool:
        """True if the client has accepted listeners and routes that no longer refer to the removed resources."""
        users = list(self._watches(makes=False))
        pending = [type_.name for type_, watch in users if watch.pending is not None]
        if pending:
            return self._expired("breaks", pending, now)
        if any(watch.work(snapshot) for _, watch in users):
            return False
        if not users:
            return True
        if self._quiet_since is None:
            self._quiet_since = now
        return self._past(self._quiet_since + self.limits.removal_delay, now)

    def _watches(self, *, makes: bool) -> Iterator[tuple[ResourceType, DeltaWatch | SotwWatch]]:
        for type_, watch in self.watches.items():
            if (type_.order < types.BREAKS_FROM) is makes:
                yield type_, watch

    def _expired(self, gate: str, blockers: Iterable[str], now: float) -> bool:
        self._blocked.add(gate)
        since = self._since.setdefault(gate, now)
        if not self._past(since + self.limits.ack_timeout, now):
            return False
        del self._since[gate]
        self._blocked.discard(gate)
        self.overdue.append(Overdue(waited=now - since, unacknowledged=tuple(blockers)))
        return True

    def _past(self, moment: float, now: float) -> bool:
        if now < moment:
            self.deadline = moment if self.deadline is None else min(self.deadline, moment)
            return False
        return True
