"""Who leads, by a Lease: a state machine without a network and without a clock.

A holder that cannot renew stops leading `renew_deadline` seconds after it sent its last accepted write. Another
candidate takes the lease when it has seen the same content for the whole duration, by its own clock. The deadline is
shorter than the duration, so two processes never lead at once, whatever their wall clocks say: the times in the lease
are for people only. https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from xds_server.kubernetes.resources import Key, Object, Resource

LEASES = Resource(group="coordination.k8s.io", plural="leases", kind="Lease")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds: for how long a lease is valid, after which a holder without a renewal stops, and between two attempts.

    Raises ValueError if they are not in this order.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew_deadline < self.duration:
            raise ValueError("write retry < renew_deadline < duration, all above 0")
        if self.duration != round(self.duration):
            raise ValueError("a lease has whole seconds")


class Election:
    """One candidate. `now` is the seconds of a clock that only goes forward, also while the machine sleeps."""

    def __init__(self, key: Key, identity: str, times: Times) -> None:
        self._key, self._identity, self._times = key, identity, times
        self._lease: Object | None = None
        self._unchanged_since = -math.inf
        self._until = -math.inf

    @property
    def holder(self) -> str:
        """The identity in the lease, or an empty text."""
        return str(_spec(self._lease).get("holderIdentity") or "")

    def leads(self, now: float) -> bool:
        """Return true if this candidate leads."""
        return now < self._until

    @property
    def until(self) -> float:
        """The time at which this candidate stops leading without another renewal."""
        return self._until

    def observed(self, lease: Object | None, now: float) -> None:
        """Take what was read at `now`; None if there is no lease."""
        if lease is None or _version(lease) != _version(self._lease):
            self._unchanged_since = now
        self._lease = lease
        if self.holder != self._identity:
            self._until = -math.inf

    def proposal(self, now: float, wall: datetime.datetime) -> Object | None:
        """Return the lease to write, or None while another holder's is valid. `wall` is only for people who read it."""
        before, spec = self.holder, _spec(self._lease)
        if before not in ("", self._identity) and now < self._unchanged_since + self._duration_of(spec):
            return None
        time = wall.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before == self._identity
        transitions = int(spec.get("leaseTransitions") or 0) + (not mine and self._lease is not None)
        return self._written(
            {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": round(self._times.duration),
                "acquireTime": spec.get("acquireTime") if mine else time,
                "renewTime": time,
                "leaseTransitions": transitions,
            }
        )

    def accepted(self, lease: Object, sent: float, now: float) -> None:
        """Take the API server's answer to our proposal, which was sent at `sent`."""
        self.observed(lease, now)
        self._until = sent + self._times.renew_deadline

    def release(self) -> Object | None:
        """Stop leading. Returns the lease to write, so that the next candidate need not wait, or None."""
        self._until = -math.inf
        if self._lease is None or self.holder != self._identity:
            return None
        return self._written({**_spec(self._lease), "holderIdentity": "", "leaseDurationSeconds": 1})

    def _duration_of(self, spec: dict[str, Any]) -> float:
        """Return for how long the holder may go on without a renewal, which the holder chose."""
        return max(float(spec.get("leaseDurationSeconds") or 0), self._times.duration)

    def _written(self, spec: dict[str, Any]) -> Object:
        metadata = {"namespace": self._key.namespace, "name": self._key.name}
        if self._lease is not None:
            metadata["resourceVersion"] = _version(self._lease)
        return {"metadata": metadata, "spec": spec}


def _spec(lease: Object | None) -> dict[str, Any]:
    return (lease or {}).get("spec") or {}


def _version(lease: Object | None) -> str:
    return "" if lease is None else str(lease["metadata"]["resourceVersion"])
