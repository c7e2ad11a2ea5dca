"""Prometheus metrics of the rollout, computed when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xds_server.control_plane import rollout_steps
from xds_server.control_plane.rollout_steps import Plan, State


class RolloutMetrics(Collector):
    """The metrics of the state and the plan of a rollout. `outcomes` counts the rollouts that ended, and `problem` says why this
    replica does not follow the others."""

    def __init__(
        self,
        state: Callable[[], State],
        plan: Callable[[], Plan],
        outcomes: Mapping[str, int],
        problem: Callable[[], str],
        registry: CollectorRegistry,
    ) -> None:
        self._state, self._plan, self._outcomes, self._problem = state, plan, outcomes, problem
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return tuple(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        state = self._state()
        yield GaugeMetricFamily(
            "xds_rollout_step",
            "The step of the rollout of a new version, from 1; 0 without a rollout.",
            value=state.step + 1 if state.candidate else 0,
        )
        yield GaugeMetricFamily(
            "xds_rollout_share",
            "The share of Envoys that a rollout serves the new version, 0 to 1.",
            value=rollout_steps.share(state, self._plan()),
        )
        yield GaugeMetricFamily(
            "xds_rollout_holding",
            "1 if a rollout cannot go on, such as because its source of health is silent.",
            value=int(bool(state.candidate and state.waiting)),
        )
        yield GaugeMetricFamily(
            "xds_rollout_behind",
            "1 if this control plane does not serve what the replicas agree on, such as because their store does not answer.",
            value=int(bool(self._problem())),
        )
        yield GaugeMetricFamily(
            "xds_rollout_withdrawn",
            "1 if the newest version is not served because a rollout withdrew it.",
            value=int(state.withdrawn is not None),
        )
        outcomes = CounterMetricFamily("xds_rollouts", "Rollouts that ended.", labels=["outcome"])
        for outcome, count in self._outcomes.items():
            outcomes.add_metric([outcome], count)
        yield outcomes
