"""Prometheus metrics of previews, computed when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xds_server.control_plane.control_loop import GatewayState


class PreviewMetrics(Collector):
    """The metrics of the branches that are followed. `states` returns the state of each."""

    def __init__(self, states: Callable[[], Iterable[GatewayState]], registry: CollectorRegistry) -> None:
        self._states = states
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return tuple(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        found = [_outcome(one) for one in self._states()]
        previews = GaugeMetricFamily(
            "xds_previews",
            "Branches that are served to a group of Envoys. state: current (the newest commit is served), behind (it has "
            "errors, and an earlier one is served) or empty (nothing is served yet).",
            labels=["state"],
        )
        for state in ("current", "behind", "empty"):
            previews.add_metric([state], found.count(state))
        yield previews


def _outcome(state: GatewayState) -> str:
    if state.healthy:
        return "current"
    return "behind" if state.something else "empty"
