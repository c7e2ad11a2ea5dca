"""The health of the two cohorts of a rollout, from counts of requests. It does no IO; times are seconds of any clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from xds_server.control_plane.rollout_steps import Verdict
from xds_server.gateway.model.rollout import Threshold

SILENT_AFTER = 5.0
"""Intervals of load reports without a report, after which an Envoy counts as silent."""


@dataclass(slots=True)
class Counts:
    """Requests, and those of them that failed."""

    requests: int = 0
    errors: int = 0

    @property
    def rate(self) -> float:
        """The share of failed requests, 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        return f"{self.rate:.1%} of {self.requests} requests"


@dataclass(slots=True)
class LoadHealth:
    """The counts of a rollout: of the candidate since a step began, and of the stable version in the last `window`.

    `minimum` requests are needed for a rate. `interval` is the time between two reports of an Envoy.
    """

    interval: float
    window: float = 120.0
    minimum: int = 20
    candidate: Counts = field(default_factory=Counts)
    began: float = 0.0
    _stable: deque[tuple[float, Counts]] = field(default_factory=deque)
    """Counts by second."""
    _heard: dict[str, float] = field(default_factory=dict)

    def begin(self, now: float, *, anew: bool) -> None:
        """A step begins. `anew` forgets the counts of another candidate."""
        self.began = now
        if anew:
            self.candidate = Counts()

    def report(self, node: str, chosen: bool, counts: Counts, seconds: float, now: float) -> None:
        """Take the report of an Envoy about the last `seconds`."""
        self._heard[node] = now
        if not chosen:
            if not self._stable or self._stable[-1][0] != int(now):
                self._stable.append((int(now), Counts()))
            self._stable[-1][1].requests += counts.requests
            self._stable[-1][1].errors += counts.errors
            while self._stable[0][0] < now - self.window:
                self._stable.popleft()
        elif now - seconds >= self.began - self.interval / 2:  # else it is about the version of before, too
            self.candidate.requests += counts.requests
            self.candidate.errors += counts.errors

    def forget(self, node: str) -> None:
        """An Envoy has disconnected."""
        self._heard.pop(node, None)

    @property
    def before(self) -> Counts:
        """The counts of the stable version: in the same time if it has enough requests, else of the time before."""
        same = self._since(self.began)
        return same if same.requests >= self.minimum else self._since(float("-inf"))

    def _since(self, moment: float) -> Counts:
        found = [counts for at, counts in self._stable if at >= moment]
        return Counts(sum(one.requests for one in found), sum(one.errors for one in found))

    def verdict(self, limit: Threshold | None, chosen: Collection[str], now: float) -> Verdict:
        """Compare the candidate with the stable version. `chosen` are the connected Envoys with the candidate."""
        if limit is None:
            return Verdict()
        before = self.before
        known = before.rate if before.requests >= self.minimum else None
        if self.candidate.requests >= self.minimum and limit.exceeded(self.candidate.rate, known):
            return Verdict(violation=f"error rate {self.candidate}; before {before}")
        patience = SILENT_AFTER * self.interval
        silent = sorted(
            node for node in chosen if now - max(self._heard.get(node, 0.0), self.began) > patience
        )
        if silent:
            return Verdict(silence=f"no load report in {patience:.0f} s from {', '.join(silent)}")
        if chosen and not all(self._heard.get(node, -1.0) >= self.began for node in chosen):
            return Verdict(silence="the first load reports of this step have not arrived yet")
        return Verdict()
