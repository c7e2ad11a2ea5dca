"""The health of a new version: by load reports of Envoys, or by queries of Prometheus, as its gateway says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from xds_server.control_plane import rollout_health
from xds_server.control_plane import rollout_replicas as replicas
from xds_server.control_plane.rollout_health import Counts, Figures, LoadHealth
from xds_server.control_plane.rollout_prometheus import PrometheusHealth
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import Report
from xds_server.control_plane.rollout_steps import Verdict
from xds_server.gateway.model.rollout import LOAD_REPORTS, Rollout, threshold
from xds_server.serving.events import Connected, Disconnected, Event
from xds_server.serving.load_reports import LoadReport, LoadReports


class Measurement:
    """Measures the Envoys of this replica. `is_chosen` says which of them are served the new version, `clock` gives Unix time."""

    def __init__(
        self, reports: LoadReports, is_chosen: Callable[[str], bool], clock: Callable[[], float]
    ) -> None:
        self._reports, self._is_chosen, self._clock = reports, is_chosen, clock
        self._health = LoadHealth(interval=1.0)
        self._prometheus = PrometheusHealth(clock())
        self._streams = Counter[str]()
        reports.observe(self._take)

    def request(self, rollout: Rollout) -> None:
        """Let Envoys report as often as a section `rollout` needs."""
        needed = rollout.source == LOAD_REPORTS and rollout.abort_if.error_rate is not None
        pause = rollout.pause.total_seconds()
        interval = min(2.0, max(0.5, pause / 10))
        self._health.interval, self._health.window = interval, max(pause, 10 * interval)
        self._reports.request(interval if needed and rollout.declared else None)

    def begin(self, *, anew: bool) -> None:
        """A step, or the pause of one, begins: `anew` for another version."""
        self._health.begin(self._clock(), anew=anew)
        if anew:
            self._prometheus = PrometheusHealth(self._clock())

    def observe(self, event: Event) -> None:
        """Follow which Envoys are connected. Reports of others do not count, because anybody could send them."""
        if isinstance(event, Connected) and not event.group:
            self._streams[event.node.id] += 1
        elif isinstance(event, Disconnected) and not event.group:
            self._streams[event.node.id] -= 1
            if self._streams[event.node.id] <= 0:
                del self._streams[event.node.id]
                self._health.forget(event.node.id)

    def figures(self, nodes: Iterable[str]) -> Figures:
        """Return the figures of the connected Envoys of this replica."""
        return self._health.figures([node for node in nodes if self._is_chosen(node)], self._clock())

    async def verdict(
        self, rollout: Rollout, record: Record, reports: Sequence[Report], now: float
    ) -> Verdict:
        """Judge the new version by the reports of all replicas. `now` is the time of the record."""
        limits, since = rollout.abort_if, record.state.since
        if rollout.source != LOAD_REPORTS:
            if since is None:
                return Verdict()
            nodes = replicas.nodes(reports)
            chosen = [node for node in nodes if replicas.is_chosen(record, node)]
            others = [node for node in nodes if not replicas.is_chosen(record, node)]
            source = rollout.source.prometheus
            return await self._prometheus.verdict(source, limits, chosen, others, now - since)
        limit = threshold(limits.error_rate, of_time=False) if limits.error_rate is not None else None
        found = replicas.figures(record, reports)
        verdict = rollout_health.verdict(limit, rollout.minimum_requests, found)
        return replace(verdict, silence=verdict.silence or replicas.unheard(record, reports))

    def _take(self, report: LoadReport) -> None:
        if report.group or report.node not in self._streams:
            return
        counts = Counts(report.requests, report.errors)
        chosen = self._is_chosen(report.node)
        self._health.report(report.node, chosen, counts, report.seconds, self._clock())
