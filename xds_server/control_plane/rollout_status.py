"""The state of a rollout for machines, with what all replicas report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from xds_server.control_plane import rollout_health, rollout_steps
from xds_server.control_plane import rollout_replicas as replicas
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import Report
from xds_server.control_plane.rollout_steps import Plan, State


def as_json(
    state: State, record: Record, plan: Plan, reports: Sequence[Report], minimum: int
) -> Mapping[str, Any]:
    """Return where a rollout stands, its Envoys, its figures and its replicas. A rate needs `minimum` requests."""
    nodes = replicas.nodes(reports)
    figures = replicas.figures(record, reports)
    candidate, before = rollout_health.together(figures, minimum)
    return {
        "declared": bool(plan.steps),
        **asdict(state),
        "steps": list(plan.steps),
        "pause": plan.pause,
        "share": rollout_steps.share(state, plan),
        "envoys": len(nodes),
        "chosen": [node for node in nodes if replicas.is_chosen(record, node)],
        "health": {"candidate": asdict(candidate), "before": asdict(before)},
        "replicas": {
            one.replica: {"envoys": len(one.nodes), "stable": one.stable, "candidate": one.candidate}
            for one in reports
        },
    }
