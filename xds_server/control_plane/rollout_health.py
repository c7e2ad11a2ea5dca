"""The health of the two cohorts of a rollout, from counts of requests. It does no IO; times are seconds of any clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from xds_server.control_plane.rollout_steps import Verdict
from xds_server.gateway.model.rollout import Threshold

SILENT_AFTER = 5.0
"""Intervals of load reports without a report, after which an Envoy counts as silent."""

FIRST_REPORTS = "the first load reports of this step have not arrived yet"
"""Why nothing can be said of the health of a step that has just begun."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the Envoys of one replica report: the counts of the candidate, of the stable version in the `same` time and
    in the `earlier` time too, and why nothing can be said of some Envoy."""

    candidate: Counts
    same: Counts
    earlier: Counts
    silence: str = ""


NO_FIGURES = Figures(candidate=Counts(), same=Counts(), earlier=Counts())


@dataclass(slots=True)
class LoadHealth:
    """The counts of a rollout: of the candidate since a step began, and of the stable version in the last `window`.

    `interval` is the time between two reports of an Envoy.
    """

    interval: float
    window: float = 120.0
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

    def figures(self, chosen: Collection[str], now: float) -> Figures:
        """Return the figures of now. `chosen` are the connected Envoys with the candidate."""
        return Figures(
            candidate=self.candidate,
            same=self._since(self.began),
            earlier=self._since(float("-inf")),
            silence=self._silence(chosen, now),
        )

    def _since(self, moment: float) -> Counts:
        found = [counts for at, counts in self._stable if at >= moment]
        return Counts(sum(one.requests for one in found), sum(one.errors for one in found))

    def _silence(self, chosen: Collection[str], now: float) -> str:
        patience = SILENT_AFTER * self.interval
        silent = sorted(
            node for node in chosen if now - max(self._heard.get(node, 0.0), self.began) > patience
        )
        if silent:
            return f"no load report in {patience:.0f} s from {', '.join(silent)}"
        if chosen and not all(self._heard.get(node, -1.0) >= self.began for node in chosen):
            return FIRST_REPORTS
        return ""


def verdict(limit: Threshold | None, minimum: int, found: Sequence[Figures]) -> Verdict:
    """Compare the candidate with the stable version, by the figures of all replicas. A rate needs `minimum` requests."""
    if limit is None:
        return Verdict()
    candidate, before = together(found, minimum)
    known = before.rate if before.requests >= minimum else None
    if candidate.requests >= minimum and limit.exceeded(candidate.rate, known):
        return Verdict(violation=f"error rate {candidate}; before {before}")
    return Verdict(silence=next((one.silence for one in found if one.silence), ""))


def together(found: Sequence[Figures], minimum: int) -> tuple[Counts, Counts]:
    """Return the counts of the candidate, and those of before: of the stable version in the same time if it has enough
    requests, else of the time before."""
    same = _sum(one.same for one in found)
    before = same if same.requests >= minimum else _sum(one.earlier for one in found)
    return _sum(one.candidate for one in found), before


def figures_of(values: Mapping[str, Any]) -> Figures:
    """Return figures that `asdict` has made plain values of. Raises TypeError, KeyError, ValueError."""
    counts = {name: Counts(**values[name]) for name in ("candidate", "same", "earlier")}
    if not all(
        type(number) is int and number >= 0 for one in counts.values() for number in asdict(one).values()
    ):
        raise ValueError("a count is not a number from 0")
    return Figures(**counts, silence=str(values["silence"]))


def _sum(counts: Iterable[Counts]) -> Counts:
    found = list(counts)
    return Counts(sum(one.requests for one in found), sum(one.errors for one in found))
