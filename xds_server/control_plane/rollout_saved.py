"""The state of a rollout as snapshots of the state file: a resource with JSON, and the candidate as Envoys accepted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from xds_server.control_plane import rollout_record as records
from xds_server.control_plane.rollout_record import Record
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import custom
from xds_server.serving.persistence import FURTHER

CANDIDATE, STATE = f"{FURTHER}rollout/candidate", f"{FURTHER}rollout/state"
_STATE_TYPE = custom("RolloutState", "xds.RolloutState")
_SERVED = "served"
"""The key of the versions that were served, which may be others than those of the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What is kept of a rollout over a restart: the record, the versions of the two snapshots of the file, and the second one."""

    record: Record
    stable: str
    offered: str
    candidate: Snapshot | None


def snapshots(saved: Saved) -> Mapping[str, Snapshot]:
    """Return snapshots by the names that they have in the file. The moment at which the step began is left out."""
    record = replace(saved.record, state=replace(saved.record.state, since=None))
    values = {**json.loads(records.encode(record)), _SERVED: [saved.stable, saved.offered]}
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
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"unexpected content: {error}") from None
    record = records.decode(json.dumps(values).encode())
    return Saved(record=record, stable=stable, offered=offered, candidate=kept.get(CANDIDATE))
