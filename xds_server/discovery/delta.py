"""The delta variant of a watch. Requests change the subscription; responses hold only what changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from xds_server.discovery.events import Acked, Nacked, Response, Subscribed
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.subscription import WILDCARD
from xds_server.discovery.watch import Watch, Work, fitting


@dataclass(slots=True)
class DeltaWatch(Watch):
    """The watch of one type on a delta stream.

    A request counts whatever its nonce is, but only a request with the nonce of the pending response acknowledges or
    rejects that response.
    """

    _begun: bool = False

    @property
    def _enough(self) -> int:
        return self.at_once

    @property
    def returning(self) -> bool:
        """True if the client has resources from an earlier stream."""
        return bool(self.sent)

    def recall(self, snapshot: Snapshot, earlier: Iterable[Snapshot]) -> None:
        """Do nothing: a delta client lists all that it has in its first request."""

    def receive(
        self, request: DeltaDiscoveryRequest, snapshot: Snapshot | None
    ) -> Subscribed | Acked | Nacked:
        """Handle a request. `snapshot` is the snapshot that this stream was served last."""
        first, self._begun = not self._begun, True
        added: set[str] = set()
        dropped: set[str] = set()
        if first or request.resource_names_subscribe or request.resource_names_unsubscribe:
            added, dropped = self.subscription.change(
                request.resource_names_subscribe, request.resource_names_unsubscribe
            )
            if first:
                self._begin(request)
            self._changed(added, dropped, snapshot, first)
        answer = None
        nonce = request.response_nonce
        if self.pending is not None and nonce == self.pending.nonce and not first:
            answer = self.answered(request.error_detail.message if request.HasField("error_detail") else None)
            if self.bisect:
                self._suspect()
        stale = bool(nonce) and not first and answer is None
        return answer or Subscribed(
            type=self.type, added=frozenset(added), dropped=frozenset(dropped), stale=stale
        )

    def _begin(self, request: DeltaDiscoveryRequest) -> None:
        """Take the client's state from an earlier stream: equal resources are skipped, missing ones are removed."""
        self.sent.update(request.initial_resource_versions)
        self.maybe_changed.update(request.initial_resource_versions)
        self.owes_response = self.subscription.wildcard

    def _changed(self, added: set[str], dropped: set[str], snapshot: Snapshot | None, first: bool) -> None:
        named = added - {WILDCARD}
        if WILDCARD in added and snapshot is not None:
            self._look_at(snapshot[self.type])
            self.maybe_changed.update(self.sent)
        if WILDCARD in added and not first:
            self.owes_response = True
        self.resends |= named - (self.sent.keys() if first else set())
        if WILDCARD in dropped:
            dropped = dropped | (self.sent.keys() - self.subscription.names)
        for name in dropped - {WILDCARD}:
            self._dropped(name)

    def _dropped(self, name: str) -> None:
        if self.subscription.wildcard:
            self.resends.add(name)
            return
        if self.pending is None or name not in self.pending.versions:
            # a pending response keeps it: the client may subscribe to it again before the response arrives
            self.sent.pop(name, None)
        self._done(name)
        self.unjudged.discard(name)
        self.suspects.discard(name)

    def take(
        self, snapshot: Snapshot, work: Work, nonce: str, makes: bool, breaks: bool, limit: int
    ) -> Response | None:
        """Return the next response, or None if there is nothing to send.

        `makes` allows changes, `breaks` allows removals, and `limit` is the maximum size in bytes.
        """
        changes = fitting(self.part(work.changes), limit, self.at_once) if makes else ()
        removed = (*work.absent, *work.removals) if breaks else work.absent
        if not (changes or removed or (self.owes_response and makes)):
            return None
        version = snapshot.version(self.type)
        return self._send(Response(self.type, nonce, version, changes, tuple(sorted(removed))))
