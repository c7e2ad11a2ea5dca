"""What the composer counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ComposerMetrics:
    """Requests by route, and calls by upstream."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "xds_composer_requests",
            "Requests that the composer answered, by route and outcome: complete, partial, or the reason of an error.",
            ("route", "outcome"),
            registry=registry,
        )
        self.calls = Counter(
            "xds_composer_calls",
            "Calls of the composer, by upstream and result: the class of the status, such as 2xx, or timeout, "
            "unreachable, too_large.",
            ("upstream", "result"),
            registry=registry,
        )
        self.seconds = Histogram(
            "xds_composer_request_duration_seconds",
            "Seconds until the composer answered a request, by route.",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )
