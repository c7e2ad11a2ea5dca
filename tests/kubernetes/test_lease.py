"""Of all candidates at most one leads, whatever the network and the clocks of the machines do."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from xds_server.kubernetes.lease import Election, Times
from xds_server.kubernetes.resources import Key, Object

KEY = Key("system", "leader")
TIMES = Times(duration=15, renew_deadline=10, retry=2)
WALL = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def _stored(proposal: Object | None, version: str = "1") -> Object:
    assert proposal is not None
    return {**proposal, "metadata": {**proposal["metadata"], "resourceVersion": version}}


def _leader(name: str = "a") -> tuple[Election, Object]:
    election = Election(KEY, name, TIMES)
    election.observed(None, 100)
    lease = _stored(election.proposal(100, WALL))
    election.accepted(lease, 100, 101)
    return election, lease


def test_the_first_candidate_leads_until_the_deadline_after_it_sent_its_write() -> None:
    election, lease = _leader()
    assert lease["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-02T03:04:05.000000Z",
        "renewTime": "2026-01-02T03:04:05.000000Z",
        "leaseTransitions": 0,
    }
    assert election.leads(109.9)
    assert not election.leads(110)


def test_another_candidate_waits_for_the_whole_duration_since_it_saw_the_last_change() -> None:
    _, lease = _leader()
    other = Election(KEY, "b", TIMES)
    other.observed(lease, 500)
    assert other.proposal(514.9, WALL) is None
    other.observed({**lease, "metadata": {**lease["metadata"], "resourceVersion": "2"}}, 514.9)
    assert other.proposal(515, WALL) is None
    proposal = other.proposal(529.9, WALL)
    assert proposal is not None
    assert proposal["metadata"]["resourceVersion"] == "2"
    assert (proposal["spec"]["holderIdentity"], proposal["spec"]["leaseTransitions"]) == ("b", 1)


def test_the_times_of_a_lease_decide_nothing() -> None:
    _, lease = _leader()
    lease["spec"]["renewTime"] = "1970-01-01T00:00:00.000000Z"
    other = Election(KEY, "b", TIMES)
    other.observed(lease, 500)
    assert other.proposal(501, WALL) is None


def test_a_holder_with_a_longer_lease_is_waited_for() -> None:
    _, lease = _leader()
    lease["spec"]["leaseDurationSeconds"] = 60
    other = Election(KEY, "b", TIMES)
    other.observed(lease, 500)
    assert other.proposal(559, WALL) is None
    assert other.proposal(560, WALL) is not None


def test_a_leader_that_sees_another_holder_stops_at_once() -> None:
    election, lease = _leader()
    election.observed(_stored({**lease, "spec": {**lease["spec"], "holderIdentity": "b"}}, "2"), 102)
    assert not election.leads(102)


def test_a_lease_that_is_given_back_is_free() -> None:
    election, _ = _leader()
    released = _stored(election.release(), "2")
    assert not election.leads(101)
    other = Election(KEY, "b", TIMES)
    other.observed(released, 101)
    assert other.proposal(101, WALL) is not None
    assert other.release() is None


@pytest.mark.parametrize(
    ("duration", "deadline", "retry"), [(10, 10, 2), (15, 2, 2), (15, 10, 0), (1.5, 1, 0.5)]
)
def test_times_that_are_not_safe_are_rejected(duration: float, deadline: float, retry: float) -> None:
    with pytest.raises(ValueError, match=r"write retry <|whole seconds"):
        Times(duration=duration, renew_deadline=deadline, retry=retry)


@dataclass
class Candidate:
    """A process with its clock, and the answer to its last write, while that is on the way."""

    election: Election
    offset: float
    answer: tuple[float, Object] | None = None


@dataclass
class Store:
    """The lease in the API server, which accepts only a write over the newest version."""

    lease: Object | None = None
    version: int = 0

    def write(self, proposal: Object) -> Object | None:
        known = proposal["metadata"].get("resourceVersion")
        current = None if self.lease is None else self.lease["metadata"]["resourceVersion"]
        if known != current:
            return None
        self.version += 1
        self.lease = _stored(proposal, str(self.version))
        return self.lease


class Candidates(RuleBasedStateMachine):
    """Two candidates with clocks of their own, whose requests take any time or get lost, and whose processes stop."""

    @initialize(offset=st.floats(-1000, 1000))
    def begin(self, offset: float) -> None:
        self.time, self.store, self.started = 0.0, Store(), 0
        self.candidates = [self._candidate(0), self._candidate(offset)]

    which = st.integers(0, 1)
    seconds = st.sampled_from([0.0, 1.0, 4.0, 9.5, 14.0, 14.5])

    def _candidate(self, offset: float) -> Candidate:
        self.started += 1
        return Candidate(Election(KEY, f"c{self.started}", TIMES), offset)

    def _now(self, one: Candidate) -> float:
        return self.time + one.offset

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    @rule(number=which)
    def reads(self, number: int) -> None:
        one = self.candidates[number]
        one.election.observed(self.store.lease, self._now(one))

    @rule(number=which, there=seconds, answered=st.booleans())
    def writes(self, number: int, there: float, answered: bool) -> None:
        """Send what the candidate may write. It arrives after some seconds; the answer arrives later or never."""
        one = self.candidates[number]
        sent = self._now(one)
        proposal = one.election.proposal(sent, WALL)
        if proposal is not None:
            self.time_passes(there)
            self.at_most_one_leads()
            lease = self.store.write(proposal)
            one.answer = (sent, lease) if answered and lease is not None else None

    @rule(number=which)
    def answer_arrives(self, number: int) -> None:
        one = self.candidates[number]
        if one.answer is not None:
            sent, lease = one.answer
            one.election.accepted(lease, sent, self._now(one))
            one.answer = None

    @rule(number=which, releasing=st.booleans())
    def restarts(self, number: int, releasing: bool) -> None:
        one = self.candidates[number]
        proposal = one.election.release()
        if proposal is not None and releasing:
            self.store.write(proposal)
        self.candidates[number] = self._candidate(one.offset)

    @rule(number=which, late=seconds)
    def hands_over(self, number: int, late: float) -> None:
        """One candidate gets the lease, learns it late, and is silent. The other waits for exactly the duration."""
        self.reads(number)
        self.writes(number, 0, answered=True)
        self.reads(1 - number)
        self.time_passes(late)
        self.answer_arrives(number)
        self.time_passes(TIMES.duration - late)
        self.writes(1 - number, 0, answered=True)
        self.answer_arrives(1 - number)

    @invariant()
    def at_most_one_leads(self) -> None:
        if hasattr(self, "candidates"):
            assert sum(one.election.leads(self._now(one)) for one in self.candidates) <= 1

    def teardown(self) -> None:
        """After a quiet time, anybody who tries leads."""
        one = self.candidates[0]
        one.election.observed(self.store.lease, self._now(one))
        self.time += TIMES.duration
        proposal = one.election.proposal(self._now(one), WALL)
        assert proposal is not None
        assert self.store.write(proposal)


Candidates.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestCandidates = Candidates.TestCase
