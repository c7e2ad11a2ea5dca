"""The state machine of a progressive rollout: which step a new version stands at, and when it goes on or back.

It does no IO. Versions are content versions of gateways. Times are Unix time in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from xds_server.gateway.model.rollout import Rollout


class NoRollout(Exception):  # noqa: N818 - it is the response
    """There is no rollout that an action could concern, or nothing can change now. The message says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps as shares from 0 to 1, the seconds of each, and the number of rejections that end a rollout."""

    steps: tuple[float, ...] = ()
    pause: float = 0.0
    rejections: int | None = None


def plan_of(rollout: Rollout) -> Plan:
    """Return the plan that a section `rollout` describes. After its last step all Envoys have the version."""
    return Plan(
        steps=tuple(one / 100 for one in rollout.steps),
        pause=rollout.pause.total_seconds(),
        rejections=rollout.abort_if.rejections,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A version that is not tried again until there is another one, or an operator promotes it."""

    version: str
    reason: str
    at: float
    commit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a rollout stands. Without `candidate` there is none.

    `commit` is that of the candidate, empty if its source has none. `since` is the moment at which all Envoys of the step
    had acknowledged, None before that. `waiting` says why a step does not go on although nothing is wrong, such as a
    source of health that is silent.
    """

    stable: str = ""
    candidate: str = ""
    commit: str = ""
    step: int = 0
    since: float | None = None
    paused: bool = False
    rejections: int = 0
    waiting: str = ""
    withdrawn: Withdrawn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of the health of the new version: why it is withdrawn, or why nothing can be said now."""

    violation: str = ""
    silence: str = ""


def offered(state: State, version: str, plan: Plan, commit: str = "") -> State:
    """A version of the gateway is to be served. Without steps, and for the first version, it is served to all."""
    if version == state.candidate:
        return state
    if state.withdrawn is not None and state.withdrawn.version == version:
        return State(stable=state.stable, withdrawn=state.withdrawn)
    if not state.stable or version == state.stable or not plan.steps:
        return State(stable=version)
    return State(stable=state.stable, candidate=version, commit=commit)


def rejected(state: State, plan: Plan, reason: str, now: float) -> State:
    """Something that only the candidate has was rejected."""
    if not state.candidate:
        return state
    count = state.rejections + 1
    if plan.rejections is not None and count >= plan.rejections:
        return aborted(state, f"{count} rejections, allowed are {plan.rejections - 1}: {reason}", now)
    return replace(state, rejections=count)


def tick(state: State, plan: Plan, now: float, waiting: str, verdict: Verdict) -> State:
    """Time has passed. `waiting` says which Envoys have not acknowledged; it is empty if all have."""
    if not state.candidate:
        return state
    if verdict.violation:
        return aborted(state, verdict.violation, now)
    if waiting:
        return replace(state, since=None, waiting=waiting)
    since = now if state.since is None else min(state.since, now)  # a clock may be set back
    state = replace(state, since=since, waiting=verdict.silence)
    if state.paused or verdict.silence or now - since < plan.pause:
        return state
    return _next(state, plan)


def _next(state: State, plan: Plan) -> State:
    if state.step + 1 < len(plan.steps):
        return replace(state, step=state.step + 1, since=None)
    return State(stable=state.candidate)


def promoted(state: State) -> State:
    """An operator wants all Envoys to have the candidate, or the version that was withdrawn."""
    if state.candidate:
        return State(stable=state.candidate)
    return State(stable=state.withdrawn.version) if state.withdrawn is not None else state


def aborted(state: State, reason: str, now: float) -> State:
    """The candidate is withdrawn."""
    if not state.candidate:
        return state
    withdrawn = Withdrawn(version=state.candidate, reason=reason, at=now, commit=state.commit)
    return State(stable=state.stable, withdrawn=withdrawn)


def paused(state: State, pause: bool) -> State:
    """An operator stops the clock of a rollout, or lets it go on. Conditions still withdraw a paused version."""
    return replace(state, paused=pause) if state.candidate else state


def share(state: State, plan: Plan) -> float:
    """Return the share of Envoys that have the candidate now, 0 to 1."""
    if not state.candidate or not plan.steps:
        return 0.0
    return plan.steps[min(state.step, len(plan.steps) - 1)]


def position(node: str) -> float:
    """Return the place of a node among all: the hash of its id, from 0 to less than 1."""
    return int.from_bytes(hashlib.blake2b(node.encode(), digest_size=6).digest(), "big") / (1 << 48)


def bound(nodes: Iterable[str], portion: float, before: float = -1.0) -> float:
    """Return the position up to which nodes have the candidate: a share of the connected `nodes`, at least one.

    It is never below the one of `before`, so that no node goes back from one step to the next.
    """
    if portion >= 1:
        return 1.0
    places = sorted(map(position, set(nodes)))
    if portion <= 0 or not places:
        return before
    return max(before, places[max(1, int(len(places) * portion)) - 1])
