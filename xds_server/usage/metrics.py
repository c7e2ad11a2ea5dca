"""The metrics of the usage server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class UsageMetrics:
    """The metrics, in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.exports = Counter(
            "xds_usage_exports_total",
            "Messages of Envoys. outcome: taken, malformed (rejected), full (the spool is full, and Envoy sends it again) "
            "or failed (the disk failed, and Envoy sends it again).",
            ("outcome",),
            registry=self.registry,
        )
        self.entries = Counter(
            "xds_usage_entries_total",
            "Entries in these messages. outcome: taken, or rejected because it is no entry of this version.",
            ("outcome",),
            registry=self.registry,
        )
        self.counted = Counter(
            "xds_usage_counted_total",
            "Entries that came to the database. outcome: counted, or duplicate because it was counted before.",
            ("outcome",),
            registry=self.registry,
        )
        self.misdated = Counter(
            "xds_usage_misdated_total",
            "Counted entries whose time is impossible, so that they count in the hour in which they arrived.",
            registry=self.registry,
        )
        self.corrupt = Counter(
            "xds_usage_spool_corrupt_bytes_total",
            "Bytes of the spool that the disk did not return as they were written.",
            registry=self.registry,
        )
        self.store_failures = Counter(
            "xds_usage_store_failures_total",
            "Transactions of the database that failed.",
            registry=self.registry,
        )
        self.spool = Gauge(
            "xds_usage_spool_bytes",
            "Bytes in the spool that are not in the database.",
            registry=self.registry,
        )
        self.oldest = Gauge(
            "xds_usage_oldest_seconds",
            "Seconds since the arrival of the oldest batch that is not in the database; 0 if there is none.",
            registry=self.registry,
        )
        self.connections = Gauge(
            "xds_usage_connections",
            "Connections, one for each worker of an Envoy. With an Envoy that was killed, entries of each of its "
            "workers may be lost.",
            registry=self.registry,
        )
        for outcome in ("taken", "malformed", "full", "failed"):
            self.exports.labels(outcome)
        for outcome in ("taken", "rejected"):
            self.entries.labels(outcome)
        for outcome in ("counted", "duplicate"):
            self.counted.labels(outcome)

    def read(
        self, *, spool: Callable[[], float], oldest: Callable[[], float], connections: Callable[[], float]
    ) -> None:
        """Read the gauges from these functions."""
        self.spool.set_function(spool)
        self.oldest.set_function(oldest)
        self.connections.set_function(connections)
