"""The state machine of a rollout: every order of events leaves one stable version, and steps never go down."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.rollout_steps import Plan, State, Verdict

PLAN = Plan(steps=(0.05, 0.25, 1.0), pause=10, rejections=2)
FINE = Verdict()


def rolling(version: str = "2", plan: Plan = PLAN) -> State:
    return steps.offered(steps.offered(State(), "1", plan), version, plan)


def test_the_first_version_and_one_without_steps_are_served_to_all() -> None:
    assert steps.offered(State(), "1", PLAN) == State(stable="1")
    assert steps.offered(State(stable="1"), "2", Plan()) == State(stable="2")


def test_each_step_lasts_its_pause_from_the_acknowledgement_of_its_envoys() -> None:
    state = steps.tick(rolling(), PLAN, 0, "waiting for a", FINE)
    assert (state.since, state.waiting) == (None, "waiting for a")
    state = steps.tick(state, PLAN, 100, "", FINE)
    assert (state.since, state.step) == (100, 0)
    assert steps.tick(state, PLAN, 109, "", FINE).step == 0
    for step in (1, 2):
        state = steps.tick(state, PLAN, 110 * step, "", FINE)
        assert (state.step, state.since) == (step, None)
        state = steps.tick(state, PLAN, 110 * step, "", FINE)
    assert steps.tick(state, PLAN, 300, "", FINE) == State(stable="2")


def test_a_violation_withdraws_the_version_until_another_one_comes() -> None:
    state = steps.tick(rolling(), PLAN, 5, "", Verdict(violation="errors"))
    assert state.withdrawn is not None
    assert (state.stable, state.candidate, state.withdrawn.version) == ("1", "", "2")
    assert steps.offered(state, "2", PLAN) == state
    assert steps.offered(state, "3", PLAN) == State(stable="1", candidate="3")
    assert steps.offered(state, "1", PLAN) == State(stable="1")
    assert steps.promoted(state) == State(stable="2")


def test_a_silent_source_holds_the_step() -> None:
    state = steps.tick(rolling(), PLAN, 0, "", FINE)
    state = steps.tick(state, PLAN, 1000, "", Verdict(silence="no report"))
    assert (state.step, state.waiting) == (0, "no report")
    assert steps.tick(state, PLAN, 1001, "", FINE).step == 1


def test_rejections_count_and_a_clock_that_goes_back_does_not_hold_a_step() -> None:
    state = steps.rejected(rolling(), PLAN, "bad", 0)
    assert (state.candidate, state.rejections) == ("2", 1)
    assert steps.rejected(state, PLAN, "bad", 0).withdrawn is not None
    state = steps.tick(steps.tick(rolling(), PLAN, 1000, "", FINE), PLAN, 500, "", FINE)
    assert steps.tick(state, PLAN, 510, "", FINE).step == 1


def test_a_paused_step_does_not_end_but_its_conditions_hold() -> None:
    state = steps.tick(steps.paused(rolling(), True), PLAN, 0, "", FINE)
    assert steps.tick(state, PLAN, 1000, "", FINE).step == 0
    assert steps.tick(state, PLAN, 1000, "", Verdict(violation="x")).withdrawn is not None
    assert steps.tick(steps.paused(state, False), PLAN, 1000, "", FINE).step == 1


VERSIONS = st.sampled_from(["1", "2", "3", "4"])
EVENTS = st.one_of(
    st.tuples(st.just("offered"), VERSIONS),
    st.tuples(st.just("tick"), st.floats(0, 30), st.booleans(), st.sampled_from(["", "", "bad", "silent"])),
    st.tuples(st.sampled_from(["rejected", "promoted", "aborted", "pause", "resume", "restart"])),
)


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_at_most_two_versions_are_served_and_a_withdrawn_one_is_none_of_them(
    events: list[tuple[object, ...]],
) -> None:
    state, now, known = steps.offered(State(), "1", PLAN), 0.0, {"1"}
    for event in events:
        before = state
        match event:
            case ("offered", str(version)):
                known.add(version)
                state = steps.offered(state, version, PLAN)
            case ("tick", float(seconds), bool(late), str(health)):
                now += seconds
                verdict = Verdict(
                    violation=health if health == "bad" else "", silence=health if health == "silent" else ""
                )
                state = steps.tick(state, PLAN, now, "a" if late else "", verdict)
                if not verdict.violation and (late or verdict.silence):
                    assert (state.stable, state.step) == (before.stable, before.step)
            case ("rejected",):
                state = steps.rejected(state, PLAN, "no", now)
            case ("promoted",):
                state = steps.promoted(state)
                assert not state.candidate
            case ("aborted",):
                state = steps.aborted(state, "x", now)
                assert (state.candidate, state.stable) == ("", before.stable)
            case ("restart",):
                state = replace(state, since=None)
            case (word,):
                state = steps.paused(state, word == "pause")
        assert state.stable in known
        assert state.candidate != state.stable
        assert state.withdrawn is None or state.withdrawn.version not in (state.stable, state.candidate)
        if state.candidate == before.candidate:
            assert before.step <= state.step <= before.step + 1


@given(st.sets(st.text(min_size=1), min_size=1, max_size=30), st.floats(0.01, 1), st.floats(0.01, 1))
def test_envoys_of_an_earlier_step_are_among_those_of_a_later_one(
    nodes: set[str], one: float, two: float
) -> None:
    low, high = sorted((one, two))
    first = steps.bound(nodes, low)
    chosen = {node for node in nodes if steps.position(node) <= first}
    assert 1 <= len(chosen) <= max(1, int(len(nodes) * low))
    later = steps.bound(nodes, high, first)
    assert chosen <= {node for node in nodes if steps.position(node) <= later}
