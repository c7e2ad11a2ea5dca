"""The state of a rollout as snapshots of the state file: a resource with JSON, and the candidate as Envoys accepted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from filters.language import Percent
from xds_server.control_plane import rollout_record as records
from xds_server.control_plane.rollout_record import Record
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import custom
from xds_server.gateway.model.rollout import (
    LOAD_REPORTS,
    NO_ROLLOUT,
    AbortIf,
    HealthSource,
    PrometheusSource,
    Rollout,
)
from xds_server.serving.persistence import FURTHER

CANDIDATE, STATE = f"{FURTHER}rollout/candidate", f"{FURTHER}rollout/state"
_STATE_TYPE = custom("RolloutState", "xds.RolloutState")
_SECTION = "section"
_SERVED = "served"
"""The key of the versions that were served, which may be others than those of the record."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What is kept of a rollout over a restart: the record, the versions of the two snapshots of the file, and the second one.

    `section` is the section `rollout` of the stable version, by which a version goes that has none.
    """

    record: Record
    stable: str
    offered: str
    candidate: Snapshot | None
    section: Rollout = NO_ROLLOUT


def snapshots(saved: Saved) -> Mapping[str, Snapshot]:
    """Return snapshots by the names that they have in the file. The moment at which the step began is left out."""
    record = replace(saved.record, state=replace(saved.record.state, since=None))
    values = {**json.loads(records.encode(record)), _SERVED: [saved.stable, saved.offered]}
    values[_SECTION] = _plain(saved.section)
    body = json.dumps(values, sort_keys=True).encode()
    state = Snapshot.of({_STATE_TYPE: [Resource.from_bytes("state", body)]})
    return {STATE: state, **({CANDIDATE: saved.candidate} if saved.candidate is not None else {})}


def read(kept: Mapping[str, Snapshot]) -> Saved | None:
    """Return what a file kept, None if it kept nothing. Raises ValueError if it cannot be read."""
    found = next((one for type_ in kept.get(STATE, ()) for one in kept[STATE][type_].values()), None)
    if found is None:
        return None
    try:
        values = json.loads(found.body)
        stable, offered = map(str, values.pop(_SERVED))
        section = _section(values.pop(_SECTION))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"unexpected content: {error}") from None
    record = records.decode(json.dumps(values).encode())
    return Saved(
        record=record, stable=stable, offered=offered, candidate=kept.get(CANDIDATE), section=section
    )


def _plain(section: Rollout) -> Mapping[str, Any]:
    return {
        "steps": section.steps,
        "pause": section.pause.total_seconds(),
        "abort_if": asdict(section.abort_if),
        "prometheus": asdict(section.source.prometheus) if section.source != LOAD_REPORTS else None,
        "minimum_requests": section.minimum_requests,
    }


def _section(values: Mapping[str, Any]) -> Rollout:
    prometheus = values["prometheus"]
    return Rollout(
        steps=tuple(Percent(one) for one in values["steps"]),
        pause=timedelta(seconds=values["pause"]),
        abort_if=AbortIf(**values["abort_if"]),
        source=HealthSource(prometheus=PrometheusSource(**prometheus)) if prometheus else LOAD_REPORTS,
        minimum_requests=int(values["minimum_requests"]),
    )
