"""The admin address of the controller: probes and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from xds_server.admin import Page, Pages
from xds_server.serving.metrics import CONTENT_TYPE, Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerState:
    """What the controller knows now: whether it leads, the number of objects by kind, and of Gateways by state."""

    leading: bool
    objects: dict[str, int]
    gateways: dict[str, int]


class ControllerMetrics(Collector):
    """Shows a state as gauges, which are computed when somebody asks."""

    def __init__(self, state: Callable[[], ControllerState], registry: CollectorRegistry) -> None:
        self._state = state
        registry.register(self)

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges."""
        state = self._state()
        leading = GaugeMetricFamily(
            "xds_controller_leading", "1 if this replica writes objects and statuses."
        )
        leading.add_metric([], state.leading)
        objects = GaugeMetricFamily("xds_controller_objects", "Objects of the cluster.", labels=["kind"])
        for kind, count in sorted(state.objects.items()):
            objects.add_metric([kind], count)
        gateways = GaugeMetricFamily("xds_controller_gateways", "Gateways by state.", labels=["state"])
        for name, count in sorted(state.gateways.items()):
            gateways.add_metric([name], count)
        return [leading, objects, gateways]

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering computes no state."""
        return []


def pages(known: Callable[[], bool], metrics: Metrics) -> Pages:
    """Return the pages. The controller is ready if the objects of the cluster are `known`."""

    def ready() -> Page:
        return Page.of({"ready": True}) if known() else Page.of({"ready": False}, 503)

    return {
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": ready,
        "/metrics": lambda: Page(200, metrics.text(), CONTENT_TYPE),
    }
