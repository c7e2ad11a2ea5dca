"""Replicas that share the record of a rollout by compare-and-set agree, whatever order their messages have."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds_server.control_plane import rollout_record as records
from xds_server.control_plane import rollout_replicas as replicas
from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.rollout_agreement import Agreement
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import Report
from xds_server.control_plane.rollout_steps import Plan, State, Verdict
from xds_server.control_plane.rollout_store import Answer, Unreachable

PLAN = Plan(steps=(0.1, 0.5, 1.0), pause=10)


class SharedStore:
    """One record for several replicas, as the real stores keep it. It can be away, and lose what it has."""

    name = "a store"

    def __init__(self) -> None:
        self.record = b""
        self.reports: dict[str, tuple[float, bytes]] = {}
        self.now, self.away = 0.0, False
        self.written: list[bytes] = []
        self.between: Callable[[], None] = lambda: None
        """Called once between the read and the write of a change: what another replica does in this moment."""

    async def exchange(self, replica: str, report: bytes) -> Answer:
        if self.away:
            raise Unreachable("away")
        self.reports[replica] = (self.now, report)
        ages = {name: (self.now - at, body) for name, (at, body) in self.reports.items()}
        return Answer(now=self.now, record=self.record, reports=ages)

    async def replace(self, old: bytes, new: bytes) -> bool:
        between, self.between = self.between, lambda: None
        between()
        if self.away:
            raise Unreachable("away")
        if self.record != old:
            return False
        self.record = new
        self.written.append(new)
        return True

    async def close(self, replica: str) -> None:
        self.reports.pop(replica, None)


class Replica:
    """The part of a control plane that agrees: what it reads, proposes and orders."""

    def __init__(self, store: SharedStore, name: str) -> None:
        self.agreement = Agreement(store, name)
        self.name, self.version, self.caught_up = name, "1", -1
        self.patient = True
        """False if so much time has passed that a version that no replica has is lost."""

    async def synchronise(self) -> None:
        await self.agreement.exchange(Report(replica=self.name, newest=self.version))
        if self.agreement.problem:
            return
        if self.version == self.agreement.record.newest:
            self.caught_up = self.agreement.record.number
            return

        def rule(record: Record) -> Record:
            lost = not self.patient and all(one.newest != record.newest for one in self.agreement.reports)
            new = records.proposes(record, self.version, self.caught_up, lost=lost)
            return records.proposed(record, self.version, PLAN) if new else record

        try:
            await self.agreement.change(rule)
        except Unreachable:
            return
        if self.agreement.record.newest == self.version:
            self.caught_up = self.agreement.record.number

    async def order(self, rule: Callable[[State], State]) -> None:
        if not self.agreement.problem:
            await self.agreement.change(lambda record: records.moved(record, rule(record.state)))


EVENTS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from("12345")),
    st.tuples(
        st.sampled_from(("fetch", "synchronise", "tick", "abort", "promote", "restart")), st.integers(0, 2)
    ),
    st.tuples(st.sampled_from(("away", "back", "empty")), st.just(0)),
)


@given(st.lists(EVENTS, max_size=40))
async def test_in_whatever_order_replicas_read_and_change_they_agree_in_the_end(
    events: list[tuple[str, str | int]],
) -> None:
    store = SharedStore()
    fleet = [Replica(store, name) for name in "abc"]
    head, aborted = "1", set[tuple[int, str]]()
    for one in fleet:
        await one.synchronise()
    for event, which in events:
        match event, which:
            case "commit", str(version):
                head = version
            case (("away" | "back"), _):
                store.away = event == "away"
            case "empty", _:
                store.record = b""
            case _, int(number):
                await _happens(fleet, number, event, head, store, aborted)
        for body in store.written:
            _is_whole(records.decode(body))
            state = records.decode(body).state
            assert (records.decode(body).number, state.stable) not in aborted
        store.written.clear()
    store.away = False
    for late in (False, False, True, True):
        for one in fleet:
            one.version, one.patient = head, not late
            await one.synchronise()
    found = {one.agreement.record for one in fleet}
    assert len(found) == 1
    (record,) = found
    assert record.newest == head
    assert head in (
        record.state.stable,
        record.state.candidate,
        getattr(record.state.withdrawn, "version", ""),
    )


async def _happens(
    fleet: list[Replica],
    number: int,
    event: str,
    head: str,
    store: SharedStore,
    aborted: set[tuple[int, str]],
) -> None:
    one = fleet[number]
    record = one.agreement.record
    match event:
        case "fetch":
            one.version = head
            await one.synchronise()
        case "synchronise":
            await one.synchronise()
        case "restart":
            kept, fleet[number] = one.agreement.record, Replica(store, one.name)
            fleet[number].version = one.version
            fleet[number].agreement.restore(replace(kept, state=replace(kept.state, since=None)))
        case "abort" if record.state.candidate:
            await one.synchronise()
            candidate = one.agreement.record.state.candidate
            if candidate:
                if not store.away:  # else another replica may promote it before it hears of this
                    aborted.add((one.agreement.record.number, candidate))
                await one.agreement.withdraw("x", store.now)
                assert one.agreement.record.state.candidate == ""
        case "promote":
            await one.synchronise()
            state = one.agreement.record.state
            if state.candidate:  # a withdrawn one may be promoted
                await one.order(lambda now: steps.promoted(now) if now.candidate == state.candidate else now)
        case "tick":
            await one.synchronise()
            store.now += 6
            await one.order(lambda state: steps.tick(state, PLAN, store.now, "", Verdict()))


def _is_whole(record: Record) -> None:
    """What a record says is possible: at most two versions are served, and a withdrawn one is none of them."""
    state = record.state
    withdrawn = state.withdrawn.version if state.withdrawn is not None else ""
    assert state.stable
    assert state.candidate != state.stable
    assert not withdrawn or withdrawn not in (state.stable, state.candidate)
    assert record.newest in (state.stable, state.candidate, withdrawn)
    assert record.newest in record.known


async def test_a_change_is_made_to_what_another_replica_has_written_meanwhile() -> None:
    store = SharedStore()
    one, two = Replica(store, "a"), Replica(store, "b")
    for replica in (one, two):
        await replica.synchronise()
    one.version = two.version = "2"
    await one.synchronise()
    await two.synchronise()
    paused = records.encode(
        replace(one.agreement.record, state=replace(one.agreement.record.state, paused=True), revision=9)
    )
    store.between = lambda: setattr(store, "record", paused)
    await two.agreement.withdraw("bad", 0.0)
    assert two.agreement.record.state.withdrawn is not None
    assert two.agreement.record.revision == 10


async def test_a_replica_that_lags_does_not_take_a_version_back_and_one_that_returns_does() -> None:
    store = SharedStore()
    one, two = Replica(store, "a"), Replica(store, "b")
    await one.synchronise()
    await two.synchronise()
    one.version = "2"
    await one.synchronise()
    await two.synchronise()  # it has not read version 2 yet
    assert two.agreement.record.state.candidate == "2"
    two.version = "2"
    await two.synchronise()
    two.version = "1"  # it was taken back at its source
    await two.synchronise()
    await one.synchronise()
    assert one.agreement.record.state == State(stable="1")


RECORD = Record(
    state=State(stable="1", candidate="2"),
    bound=0.5,
    number=2,
    newest="2",
    known=("1", "2"),
    revision=3,
    id="x",
)


def test_a_record_is_the_same_after_encoding() -> None:
    assert records.decode(records.encode(RECORD)) == RECORD
    assert records.decode(b"") == Record()


@pytest.mark.parametrize(
    "change",
    [
        {"stable": 5},
        {"known": [1]},
        {"step": -1},
        {"bound": 7},
        {"candidate": "1"},
        {"withdrawn": {"version": 1, "reason": "", "at": 0, "commit": ""}},
        {"withdrawn": []},
        {"unknown": 1},
        {"since": "now"},
    ],
)
def test_a_record_with_something_unexpected_is_rejected(change: dict[str, object]) -> None:
    if change == {"withdrawn": []}:
        change = {"withdrawn": [1]}
    body = json.dumps({**json.loads(records.encode(RECORD)), **change}).encode()
    with pytest.raises(ValueError, match=r"unexpected|candidate|range"):
        records.decode(body)


@given(st.binary(max_size=200))
def test_bytes_are_a_record_or_rejected(body: bytes) -> None:
    for decode in (records.decode, replicas.decode):
        with suppress(ValueError):
            decode(body)


def test_a_step_waits_for_replicas_that_serve_it_to_nobody_yet() -> None:
    reports = [Report(replica="a", stable="1", candidate="", nodes={"x": True}, number=2)]
    record = replace(RECORD, bound=1.0)
    assert replicas.waiting(record, reports) == "the control plane a does not have version 2"
    reports = [replace(reports[0], stable="0")]
    assert replicas.waiting(record, reports) == "the control plane a does not have version 1"
    reports = [replace(reports[0], candidate="2", step=1)]
    assert replicas.waiting(record, reports) == "the control plane a has not followed to step 1 yet"
    reports = [replace(reports[0], step=0, nodes={"x": False})]
    assert replicas.waiting(record, reports) == "not acknowledged yet by x"
    assert replicas.waiting(record, []) == "no Envoy is connected"
    assert replicas.waiting(replace(record, bound=-1.0), reports) == "no Envoy is connected"


def test_patience_is_over_only_without_a_break() -> None:
    patience = replicas.Patience(10)
    assert [patience.over(True, now) for now in (0, 9, 10)] == [False, False, True]
    assert not patience.over(False, 11)
    assert [patience.over(True, now) for now in (12, 5, 14, 15)] == [False, False, False, True]
