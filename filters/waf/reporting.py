"""Counts inspected requests and the rules that matched."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter

from filters.waf.frames import Match

log = logging.getLogger(__name__)


class Reporter:
    """Reports the inspections of all routes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "xds_waf_requests",
            "Requests that the web application firewall inspected, by the route. outcome: passed, detected (found, and let "
            "pass), blocked, or unavailable (not inspected).",
            ["route", "outcome"],
            registry=registry,
        )
        self._matches = Counter(
            "xds_waf_matches",
            "Requests in which a rule of the web application firewall matched, by the id of the rule.",
            ["rule"],
            registry=registry,
        )

    def inspected(self, route: str, outcome: str, matches: list[Match]) -> None:
        """Count an inspection."""
        self._requests.labels(route, outcome).inc()
        for one in matches:
            self._matches.labels(str(one.rule)).inc()

    def unavailable(self, route: str, why: str) -> None:
        """Count and log a request that could not be inspected."""
        self._requests.labels(route, "unavailable").inc()
        log.warning("a request could not be inspected route=%s error=%s", route, why)
