"""Counts and logs messages that do not match their schema."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter

from filters.validation.faults import LONGEST_DETAIL
from filters.validation.messages import Rejection

log = logging.getLogger(__name__)

MOST_LOGGED = 1_000
"""Different faults that are logged. Each is logged once, because a fault of a client or an upstream repeats."""


class Reporter:
    """Reports invalid messages of all routes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._invalid = Counter(
            "xds_invalid_messages",
            "Requests and responses that do not match the schema of their route, by the route and the reason.",
            ["route", "message", "reason"],
            registry=registry,
        )
        self._logged: set[tuple[str, str, str, str]] = set()

    def __call__(self, route: str, side: str, rejection: Rejection) -> None:
        """Count an invalid message. Its first fault is logged if it is new."""
        self._invalid.labels(route, side, rejection.reason).inc()
        fault = rejection.faults[0] if rejection.faults else None
        place = "" if fault is None else f"{fault.place}:{fault.name}{fault.pointer}"
        detail = (rejection.detail if fault is None else fault.detail)[:LONGEST_DETAIL]
        key = (route, side, place, detail)
        if key not in self._logged and len(self._logged) < MOST_LOGGED:
            self._logged.add(key)
            log.warning(
                "%s does not match its schema route=%s reason=%s place=%s detail=%r",
                side,
                route,
                rejection.reason,
                place,
                detail,
            )
