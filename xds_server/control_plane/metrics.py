"""Prometheus metrics of the gateway that is served: its age, its health, its problems, and who has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xds_server.control_plane.control_loop import GatewayState
from xds_server.control_plane.fleet import Fleet, Served
from xds_server.sources.source import Version


class GatewayMetrics(Collector):
    """Computes the metrics when they are scraped. `version` is the served one of the source, `clock` returns Unix time."""

    def __init__(
        self,
        gateway: GatewayState,
        fleet: Fleet,
        served: Served,
        registry: CollectorRegistry,
        version: Callable[[], Version | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._version = version
        self._gateway, self._fleet, self._served, self._clock = gateway, fleet, served, clock
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return tuple(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        gateway = self._gateway
        yield GaugeMetricFamily(
            "xds_gateway_serving", "1 if a gateway is served.", value=int(gateway.something)
        )
        yield GaugeMetricFamily(
            "xds_gateway_healthy",
            "1 if the newest state of the folder has no errors and is served.",
            value=int(gateway.healthy),
        )
        yield GaugeMetricFamily(
            "xds_gateway_age_seconds",
            "Seconds since the served gateway was published; 0 before the first one.",
            value=max(0.0, self._clock() - gateway.since) if gateway.since else 0.0,
        )
        version = self._version()
        if version is not None:
            yield GaugeMetricFamily(
                "xds_source_commit_timestamp_seconds",
                "When the served commit was made, in Unix time.",
                value=version.time,
            )
            yield GaugeMetricFamily(
                "xds_source_lag_seconds",
                "Seconds since the newest commit was seen, if it is not served; 0 if it is.",
                value=max(0.0, self._clock() - gateway.behind) if gateway.behind else 0.0,
            )
        yield CounterMetricFamily("xds_gateway_changes", "Gateways published.", value=gateway.changes)
        problems = GaugeMetricFamily(
            "xds_gateway_problems", "Problems of the newest state of the folder.", labels=["severity"]
        )
        for severity in ("error", "warning"):
            found = sum(problem.severity == severity for problem in gateway.problems)
            problems.add_metric([severity], found)
        yield problems
        yield from self._envoys()

    def _envoys(self) -> Iterator[Metric]:
        states = self._fleet.states(self._served)
        envoys = GaugeMetricFamily(
            "xds_envoys",
            "Connected Envoys. state: current (it has what is served), waiting or rejecting.",
            labels=["state"],
        )
        for state in ("current", "waiting", "rejecting"):
            envoys.add_metric([state], states.count(state))
        yield envoys
