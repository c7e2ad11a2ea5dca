"""The state-of-the-world variant of a watch: each request lists all names, and LDS and CDS responses are complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from xds_server.discovery.events import Acked, Nacked, Response, Subscribed
from xds_server.discovery.snapshot import Difference, Resource, Snapshot
from xds_server.discovery.subscription import WILDCARD
from xds_server.discovery.watch import Watch, Work, fitting


@dataclass(slots=True)
class SotwWatch(Watch):
    """The watch of one type on a state-of-the-world stream."""

    held: dict[str, Resource] = field(default_factory=dict)
    """Resources that the snapshot lost and that the client keeps for a while, by name. Absence deletes, so a response
    in the meantime must contain them."""
    doubted: set[str] = field(default_factory=set)
    """Names that a request with an old nonce left out. The client may have dropped them; if it subscribes to them again,
    they are sent again."""
    _begun: bool = False
    _known_version: str = ""

    def receive(self, request: DiscoveryRequest, snapshot: Snapshot | None) -> Subscribed | Acked | Nacked:
        """Handle a request. `snapshot` is the snapshot that this stream was served last."""
        if not self._begun:
            return self._begin(request, snapshot)
        if request.response_nonce and request.response_nonce != self.nonce:
            added = self.subscription.extend(request.resource_names)
            self._doubt(set(request.resource_names))
            self._changed(added, set(), snapshot)
            return Subscribed(type=self.type, added=frozenset(added), stale=True)
        added, dropped = self.subscription.replace(request.resource_names)
        rejected = request.error_detail.message if request.HasField("error_detail") else None
        answer = self.answered(rejected) if request.response_nonce else None
        self.resends |= {name for name in self.doubted if self.subscription.wants(name)}
        self.doubted.clear()
        self._changed(added, dropped, snapshot)
        return answer or Subscribed(type=self.type, added=frozenset(added), dropped=frozenset(dropped))

    def _doubt(self, listed: set[str]) -> None:
        """Note the names that a request with an old nonce leaves out. Names that it lists again are sent again."""
        if not listed and self.subscription.unnamed:
            return
        left_out = set() if WILDCARD in listed else self.sent.keys() - listed
        again = self.doubted - left_out
        self.resends |= again
        self.doubted = left_out

    def _begin(self, request: DiscoveryRequest, snapshot: Snapshot | None) -> Subscribed:
        self._begun = True
        added, _ = self.subscription.replace(request.resource_names)
        # LDS and CDS need a response even if it is empty: the client may have resources from an earlier stream
        self.owes_response = self.subscription.wildcard or self.type.whole
        if self.subscription.purely_wildcard and self.type.whole:
            self._known_version = request.version_info
        self._changed(added, set(), snapshot)
        return Subscribed(type=self.type, added=frozenset(added))

    def _changed(self, added: set[str], dropped: set[str], snapshot: Snapshot | None) -> None:
        self.resends |= added - {WILDCARD}
        if WILDCARD in added and snapshot is not None:
            self._look_at(snapshot[self.type])
        if WILDCARD in dropped:
            dropped = dropped | (self.sent.keys() - self.subscription.names)
        for name in dropped:
            if not self.subscription.wants(name):
                self.sent.pop(name, None)
                self.held.pop(name, None)

    def note(self, difference: Difference, old: Snapshot) -> None:
        """Keep removed resources for a while. A type whose given version alone changed is sent again."""
        Watch.note(self, difference, old)
        if not (difference.changed or difference.removed):
            self._renewed()
        if self.type.whole:
            items = old[self.type]
            kept = self.sent.keys() - self.rejected.keys()
            self.held.update({name: items[name] for name in difference.removed if name in kept})
        for name in difference.changed:
            self.held.pop(name, None)

    def _renewed(self) -> None:
        if self.type.whole:
            self.owes_response = (
                self.owes_response or self.subscription.wildcard or bool(self.subscription.names)
            )
        else:
            self.resends.update(name for name in self.sent if self.subscription.wants(name))

    @property
    def returning(self) -> bool:
        """True if the client has resources from an earlier stream."""
        return bool(self._known_version)

    def recall(self, snapshot: Snapshot, earlier: Iterable[Snapshot]) -> None:
        """Restore what the client has from an earlier stream, if a served snapshot had its version."""
        known, self._known_version = self._known_version, ""
        if not known:
            return
        if known == snapshot.version(self.type):
            self._skip(snapshot)
            return
        for served in earlier:
            if known == served.version(self.type):
                self.sent = {name: item.version for name, item in served[self.type].items()}
                difference = snapshot.diff(served).get(self.type)
                if difference is not None:
                    self.note(difference, served)
                return

    def work(self, snapshot: Snapshot) -> Work:
        """Return what is to be sent. The state-of-the-world protocol cannot report that a name does not exist."""
        work = Watch.work(self, snapshot)
        for name in work.absent:
            self._done(name)
        return Work(work.changes, work.removals, ())

    def take(
        self, snapshot: Snapshot, work: Work, nonce: str, makes: bool, breaks: bool, limit: int
    ) -> Response | None:
        """Return the next response, or None if there is nothing to send.

        `makes` allows changes, `breaks` allows removals, and `limit` is the maximum size in bytes.
        """
        if self.type.whole:
            return self._whole(snapshot, nonce, work, makes, breaks)
        return self._part(snapshot, nonce, work, makes, limit)

    def _skip(self, snapshot: Snapshot) -> None:
        """Send nothing: by its version, the client has exactly this state from another stream."""
        self.sent = {name: resource.version for name, resource in snapshot[self.type].items()}
        self.owes_response = False
        self.resends.clear()

    def _whole(
        self, snapshot: Snapshot, nonce: str, work: Work, makes: bool, breaks: bool
    ) -> Response | None:
        if not ((makes and (work.changes or self.owes_response)) or (breaks and work.removals)):
            return None
        items = snapshot[self.type]
        wanted = {name: resource for name, resource in items.items() if self.subscription.wants(name)}
        if breaks:
            self.held.clear()
            for name in work.removals:
                self._done(name)
                self.sent.pop(name, None)
        kept = {name: resource for name, resource in self.held.items() if self.subscription.wants(name)}
        state = {**wanted, **kept}
        everything = self.subscription.purely_wildcard and not kept
        version = snapshot.version(self.type) if everything else snapshot.version_of(self.type, state)
        response = self._send(
            Response(self.type, nonce, version, tuple(state[name] for name in sorted(state)))
        )
        self.maybe_changed |= kept.keys()  # their removal is sent later
        return response

    def _part(self, snapshot: Snapshot, nonce: str, work: Work, makes: bool, limit: int) -> Response | None:
        for name in work.removals:
            self._done(name)
            self.sent.pop(name, None)
        if not makes or not (work.changes or self.owes_response):
            return None
        changes = fitting(self.part(work.changes), limit, self.at_once)
        return self._send(Response(self.type, nonce, snapshot.version(self.type), changes))
