"""What the replicas of a control plane report to each other during a rollout, and what follows from it. It does no IO."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.rollout_health import NO_FIGURES, Figures, figures_of
from xds_server.control_plane.rollout_record import Record

LIVE = 10.0
"""Seconds after which a replica without a report counts as ended."""
LOST_AFTER = 15.0
"""Seconds without a replica that has the newest version, after which another version takes its place."""
DESERTED_AFTER = 300.0
"""Seconds without any Envoy of a step, after which another one is chosen. A version may have ended those of the step."""
DESERTED = "none of the Envoys of this step is connected"
"""Why a rollout waits if its version may have ended them."""
UNKNOWN_STEPS = (
    "its steps are those of the version of before, which are not known after a restart; promote or abort it"
)
"""Why a rollout waits if its version has no section `rollout`."""


class Patience:
    """Says whether something has been the case for some `seconds` without a break."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def over(self, holds: bool, now: float) -> bool:
        """Take note of whether it is the case `now`. Returns True if it has been for long enough."""
        if not holds:
            self._since = None
            return False
        self._since = now if self._since is None else min(self._since, now)  # a clock may be set back
        return now - self._since >= self._seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a replica says of itself.

    `number`, `step` and `since` are those of the record that it follows. `newest` is the version that it has read last,
    empty before the first one. `stable` and `candidate` are the versions that it serves. `nodes` are the connected Envoys,
    and whether each has what it is served. `figures` are those of its load reports.
    """

    replica: str
    number: int = 0
    step: int = 0
    since: float | None = None
    newest: str = ""
    stable: str = ""
    candidate: str = ""
    nodes: Mapping[str, bool] = field(default_factory=dict)
    figures: Figures = NO_FIGURES

    def follows(self, record: Record) -> bool:
        """True if the replica serves what the record says."""
        state = record.state
        return (self.number, self.step, self.candidate) == (record.number, state.step, state.candidate)


def encode(report: Report) -> bytes:
    """Return a report as JSON."""
    return json.dumps(asdict(report), sort_keys=True).encode()


def decode(body: bytes) -> Report:
    """Return the report that JSON contains. Raises ValueError."""
    try:
        values: dict[str, Any] = json.loads(body)
        figures = figures_of(values.pop("figures"))
        report = Report(**values, figures=figures)
        assert all(isinstance(getattr(report, one.name), str) for one in fields(report) if one.type == "str")
        nodes = {str(node): bool(has) for node, has in report.nodes.items()}
    except (TypeError, KeyError, AttributeError, AssertionError, RecursionError) as error:
        raise ValueError(f"unexpected content: {error}") from None
    return replace(report, nodes=nodes)


def nodes(reports: Iterable[Report]) -> dict[str, bool]:
    """Return all connected Envoys, and whether each has what it is served."""
    found: dict[str, bool] = {}
    for report in reports:
        for node, has in report.nodes.items():
            found[node] = has and found.get(node, True)
    return found


def is_chosen(record: Record, node: str) -> bool:
    """True if a node is served the candidate."""
    return bool(record.state.candidate) and steps.position(node) <= record.bound


def judge(record: Record, reports: Iterable[Report]) -> str:
    """Return the replica that says when a step ends: the first one that knows the candidate. It is empty if none does."""
    wanted = record.state.candidate
    knowing = (one.replica for one in reports if wanted and one.newest == wanted == one.candidate)
    return min(knowing, default="")


def waiting(record: Record, reports: Sequence[Report]) -> str:
    """Return why the pause of a step cannot begin: Envoys of the step, or their replicas, have not the candidate yet."""
    concerned = [one for one in reports if any(is_chosen(record, node) for node in one.nodes)]
    if not concerned:
        gone = record.bound >= 0 and any(one.nodes for one in reports)
        return DESERTED if gone else "no Envoy is connected"
    wanted = record.state.candidate
    for one in concerned:
        if one.candidate != wanted:
            lacking = wanted if one.stable == record.state.stable else record.state.stable
            return f"the control plane {one.replica} does not have version {lacking}"
        if not one.follows(record):
            return f"the control plane {one.replica} has not followed to step {record.state.step + 1} yet"
    late = sorted(node for node, has in nodes(concerned).items() if not has and is_chosen(record, node))
    return f"not acknowledged yet by {', '.join(late)}" if late else ""


def figures(record: Record, reports: Iterable[Report]) -> list[Figures]:
    """Return the figures of the replicas that follow the record. Others may be about another version."""
    return [one.figures for one in reports if one.follows(record)]


def unheard(record: Record, reports: Iterable[Report]) -> str:
    """Return the replicas whose figures are not of the pause of this step yet."""
    behind = [one.replica for one in reports if one.follows(record) and one.since != record.state.since]
    return f"the control plane {', '.join(behind)} has not followed yet" if behind else ""
