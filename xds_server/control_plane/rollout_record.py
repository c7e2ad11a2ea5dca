"""The record of a rollout, on which the replicas of a control plane agree. It does no IO.

A replica changes the record by compare-and-set, so each change is made to a record that the replica has seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.rollout_steps import Plan, State, Withdrawn

REMEMBERED = 20
"""Versions that a record knows. A replica that is further behind is taken for one with something new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Where a rollout stands, for all replicas.

    `bound` says which nodes have the candidate. `newest` is the version that was proposed last, `number` counts the
    proposals, and `known` are the versions that were proposed, the newest last. `revision` counts the changes of the
    record, and `id` tells records apart whose revisions cannot be compared.
    """

    state: State = field(default_factory=State)
    bound: float = -1.0
    number: int = 0
    newest: str = ""
    known: tuple[str, ...] = ()
    revision: int = 0
    id: str = ""


def proposes(record: Record, version: str, caught_up: int, *, lost: bool) -> bool:
    """True if a replica that has read `version` proposes it, and False if it only has not read the newest one yet.

    A version that no replica has proposed is new. One that is known is a return to it if the replica had the newest
    version, so it had `caught_up` with this proposal. `lost` is true if no replica has the newest version any more.
    """
    if version == record.newest:
        return False
    return version not in record.known or caught_up == record.number or lost


def proposed(record: Record, version: str, plan: Plan, commit: str = "", *, ordered: bool = False) -> Record:
    """A replica has read a new version. If an operator has `ordered` it, it is served to all, also if it was withdrawn."""
    before = State(stable=record.state.stable) if ordered else record.state
    state = steps.offered(before, version, Plan() if ordered else plan, commit)
    withdrawn = record.state.withdrawn
    if ordered and withdrawn is not None and withdrawn.version != version:
        state = replace(state, withdrawn=withdrawn)  # it is not tried again when the order ends
    return replace(
        record,
        state=state,
        bound=-1.0 if state.candidate != record.state.candidate else record.bound,
        number=record.number + 1,
        newest=version,
        known=(*(one for one in record.known if one != version), version)[-REMEMBERED:],
    )


def moved(record: Record, state: State) -> Record:
    """The rollout stands elsewhere."""
    return replace(record, state=state)


def rejected(record: Record, number: int, plan: Plan, reason: str, now: float) -> Record:
    """Something of the version with this `number` was rejected."""
    return (
        moved(record, steps.rejected(record.state, plan, reason, now)) if number == record.number else record
    )


def restores(ours: Record, theirs: Record, *, running: bool) -> bool:
    """True if the store has lost changes that we have seen: it was emptied, or an older copy has taken its place.

    `running` is true if ours was in this store while this process has run. Otherwise it may be older than another record.
    """
    comparable = running or not theirs.revision or ours.id == theirs.id
    return ours.revision > theirs.revision and comparable


def lost_withdrawal(ours: Record, theirs: Record) -> Withdrawn | None:
    """Return what we have seen withdrawn if the store tries it still: a replica that did not know has written it again."""
    withdrawn, state = ours.state.withdrawn, theirs.state
    if withdrawn is None or theirs.number != ours.number or state.candidate != withdrawn.version:
        return None
    return withdrawn


def restored(ours: Record, theirs: Record) -> Record:
    """Return the record that a replica writes in the place of an older one. The pause of the step begins again."""
    revision = max(ours.revision, theirs.revision)
    return replace(ours, state=replace(ours.state, since=None), revision=revision)


def encode(record: Record) -> bytes:
    """Return a record as JSON."""
    values = {name: value for name, value in asdict(record).items() if name != "state"}
    return json.dumps({**asdict(record.state), **values}, sort_keys=True).encode()


def decode(body: bytes) -> Record:
    """Return the record that JSON contains, an empty one for no bytes. Raises ValueError."""
    if not body:
        return Record()
    try:
        values = json.loads(body)
        own = {one.name: values.pop(one.name) for one in fields(Record) if one.name != "state"}
        withdrawn = values.pop("withdrawn")
        state = State(**values, withdrawn=Withdrawn(**withdrawn) if withdrawn else None)
        record = Record(**{**own, "known": tuple(own["known"])}, state=state)
        _check(record)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"unexpected content: {error}") from None
    return record


_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("stable", "candidate", "commit", "waiting", "newest", "id", "version", "reason"), str),
    **dict.fromkeys(("step", "rejections", "number", "revision"), int),
    **dict.fromkeys(("bound", "at"), (int, float)),
    "since": (int, float, type(None)),
    "paused": bool,
}


def _check(record: Record) -> None:
    """Raise TypeError for a value of another type, and ValueError for a rollout that cannot be."""
    parts: list[Any] = [record, record.state, *([record.state.withdrawn] if record.state.withdrawn else [])]
    for part in parts:
        for one in fields(part):
            value = getattr(part, one.name)
            if one.name in _TYPES and not isinstance(value, _TYPES[one.name]):
                raise TypeError(f"'{one.name}' is {value!r}")
    if not all(isinstance(one, str) for one in record.known):
        raise TypeError("'known' has something else than versions")
    if record.state.candidate and (record.state.candidate == record.state.stable or not record.state.stable):
        raise ValueError("the candidate is no other version than the stable one")
    if record.state.step < 0 or record.revision < 0 or not -1.0 <= record.bound <= 1.0:
        raise ValueError("a number is out of its range")
