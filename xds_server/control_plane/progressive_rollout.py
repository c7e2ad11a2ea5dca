"""Progressive rollouts: a new version is served to some Envoys first, and withdrawn if it does harm."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from xds_server.control_plane import rollout_saved
from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.publication import ACK_TIMEOUT, Publication, joined_rules, rules_of
from xds_server.control_plane.rollout_health import Counts, LoadHealth
from xds_server.control_plane.rollout_prometheus import PrometheusHealth
from xds_server.control_plane.rollout_saved import Saved
from xds_server.control_plane.rollout_steps import Plan, State, Verdict
from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.rollout import LOAD_REPORTS, NO_ROLLOUT, Rollout, threshold
from xds_server.serving.events import Disconnected, Event, Nacked
from xds_server.serving.load_reports import LoadReport, LoadReports
from xds_server.serving.services import ClientState
from xds_server.serving.store import Store
from xds_server.translate import gateway_version

log = logging.getLogger(__name__)


class NoRollout(Exception):  # noqa: N818 - it is the response
    """There is no rollout that an action could concern. The message says so."""


class ProgressiveRollout:
    """Serves new versions, at once or step by step as their section `rollout` says.

    `clients` returns the open streams. `plan` returns the section `rollout` of the newest gateway, and `commit` its commit.
    `at_once` is true if an operator has chosen the newest version, so that it has no steps and is not held. `changed` is
    called if there is something new to keep over a restart. Use it in the thread of the event loop.
    """

    def __init__(
        self,
        publication: Publication,
        store: Store,
        clients: Callable[[], Iterable[ClientState]],
        reports: LoadReports,
        *,
        plan: Callable[[], Rollout],
        commit: Callable[[], str] = lambda: "",
        at_once: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state = State()
        self.outcomes = {"completed": 0, "withdrawn": 0}
        self.kept = False
        """True if the state is kept over a restart, in `saved`."""
        self.changed: Callable[[], None] = lambda: None
        self._publication, self._store, self._clients, self._reports = publication, store, clients, reports
        self._rollout, self._commit, self._at_once, self._clock = plan, commit, at_once, clock
        self._bound = -1.0
        self._newest: tuple[str, Compiled] | None = None
        """The version that was to be served last, with its gateway."""
        self._restored = False
        self._rejections: list[str] = []
        self._health = LoadHealth(interval=1.0)
        self._prometheus: PrometheusHealth | None = None
        self._lock = asyncio.Lock()
        self._bell = asyncio.Event()
        reports.observe(self._report)

    async def publish(self, compiled: Compiled) -> None:
        """Serve a gateway: to the Envoys of the first step, or to all."""
        async with self._lock:
            version = gateway_version.portable(compiled.snapshot)
            self._newest = version, compiled
            rollout = compiled.gateway.sections.rollout
            self._request_reports(rollout)
            alone = not self._restored and not self._nodes()
            ordered = self._at_once()
            plan = Plan() if alone or ordered else plan_of(rollout)
            before = State(stable=self.state.stable) if ordered else self.state
            new = steps.offered(before, version, plan, self._commit())
            if new.candidate:
                await self._offer(compiled, new)
            elif new.withdrawn is not None:
                self._take_back(new)
                log.warning(
                    "version %s is not served, because it was withdrawn: %s; `xds rollout promote` serves it",
                    _named(version, new.withdrawn.commit),
                    new.withdrawn.reason,
                )
            else:
                await self._publication.publish(compiled)
                self._take_back(new)

    async def run(self, interval: float = 0.25) -> None:
        """Go on with rollouts until cancelled."""
        while True:
            self._bell.clear()
            try:
                async with asyncio.timeout(interval if self.state.candidate else None):
                    await self._bell.wait()
            except TimeoutError:
                pass
            try:
                async with self._lock:
                    await self._tick()
            except Exception:
                log.exception("the rollout could not go on: this is a fault of xds, please report it")
                await asyncio.sleep(10 * interval)

    def observe(self, event: Event) -> None:
        """Count rejections of what only the new version has."""
        if isinstance(event, Disconnected):
            self._health.forget(event.node.id)
        if not isinstance(event, Nacked) or event.group or not self.state.candidate:
            return
        versions = event.blamed or event.versions
        if any(self._store.only_of_candidate(event.type, name, one) for name, one in versions.items()):
            reason = f"node {event.node.id}: {event.message}"
            self._rejections.append(reason)
            self._bell.set()

    async def promote(self) -> None:
        """Serve the new version to all. Raises NoRollout."""
        async with self._lock:
            new = steps.promoted(self.state)
            if new == self.state:
                raise NoRollout("there is no rollout, and no version was withdrawn")
            if self.state.candidate:
                await self._move(new)
                return
            assert self.state.withdrawn is not None
            if self._newest is None or self._newest[0] != self.state.withdrawn.version:
                raise NoRollout("the version that was withdrawn is not known any more; commit it again")
            log.info("serving version %s to all Envoys by order", new.stable)
            await self._publication.publish(self._newest[1])
            self._set(new)

    async def abort(self) -> None:
        """Withdraw the new version. Raises NoRollout."""
        async with self._lock:
            self._need()
            await self._move(steps.aborted(self.state, "by order of an operator", self._clock()))

    async def pause(self, pause: bool) -> None:
        """Stay at the step until told otherwise, or go on. Raises NoRollout."""
        async with self._lock:
            self._need()
            await self._move(steps.paused(self.state, pause))

    def _need(self) -> None:
        if not self.state.candidate:
            raise NoRollout("there is no rollout")

    def as_json(self) -> dict[str, Any]:
        """The state for machines."""
        state, plan = self.state, self.plan
        chosen = [node for node in self._nodes() if self._is_chosen(node)] if state.candidate else []
        return {
            "declared": bool(plan.steps),
            **asdict(state),
            "steps": list(plan.steps),
            "pause": plan.pause,
            "share": steps.share(state, plan),
            "envoys": len(self._nodes()),
            "chosen": chosen,
            "health": {
                "candidate": asdict(self._health.candidate),
                "before": asdict(self._health.before),
            },
            "outcomes": dict(self.outcomes),
        }

    def saved(self) -> Mapping[str, Snapshot]:
        """Return what is kept over a restart."""
        candidate = self._store.accepted(candidate=True)
        return rollout_saved.snapshots(Saved(state=self.state, bound=self._bound, candidate=candidate))

    def restore(self, kept: Mapping[str, Snapshot]) -> None:
        """Go on where the rollout stood before a restart. The pause of its step begins again."""
        try:
            saved = rollout_saved.read(kept)
        except ValueError as error:
            log.warning("the state of the rollout cannot be read; there is none error=%s", error)
            return
        if saved is None:
            return
        self.state, self._bound = saved.state, saved.bound
        self._restored = bool(saved.state.stable)
        if saved.state.candidate and saved.candidate is not None and self._store.current() is not None:
            self._store.offer(saved.candidate, chosen=self._is_chosen)
            log.info("the rollout goes on at step %d version=%s", saved.state.step + 1, saved.state.candidate)

    def rules(self) -> Snapshot:
        """Return the rules that policy servers need now. Until the last step, a rule of the stable version is served
        if both versions have it."""
        stable, candidate = self._store.current(), self._store.candidate()
        assert stable is not None
        if candidate is None:
            return rules_of(stable)
        whole = steps.share(self.state, self.plan) >= 1
        return joined_rules(candidate, stable) if whole else joined_rules(stable, candidate)

    def version_of(self, node: str) -> str:
        """Return the version of the gateway that a node is served, "" before the first one."""
        state = self.state
        return state.candidate if state.candidate and self._is_chosen(node) else state.stable

    @property
    def plan(self) -> Plan:
        """The plan of the newest gateway."""
        return plan_of(self._rollout())

    async def _offer(self, compiled: Compiled, new: State) -> None:
        goes_on = new.candidate == self.state.candidate
        stable = self._store.current()
        assert stable is not None
        proof = await self._publication.prepare(compiled.snapshot, joined_rules(stable, compiled.snapshot))
        self._begin(new, goes_on=goes_on)
        self._store.offer(
            proof.snapshot,
            chosen=self._is_chosen,
            proved_by=self._publication.proved_by,
            left_out=proof.rejected,
        )
        plan = plan_of(compiled.gateway.sections.rollout)
        for held in () if goes_on else self._store.held_of_candidate():
            new = steps.rejected(new, plan, f"{held.type.name} {held.name}: {held.message}", self._clock())
        if not new.candidate:  # no stream has run since `offer`, so no Envoy was sent anything
            await self._move(new)
            return
        if not goes_on:
            self._bell.set()
            if not self.kept:
                log.warning(
                    "this rollout does not survive a restart, which would serve the version to all; see --state"
                )
            log.info(
                "rollout begins version=%s step=1 of %d envoys=%d of %d",
                _named(new.candidate, new.commit),
                len(plan.steps),
                sum(map(self._is_chosen, self._nodes())),
                len(self._nodes()),
            )
        self._set(new)

    def _begin(self, new: State, *, goes_on: bool) -> None:
        """Choose the Envoys of a step, and count anew for it."""
        plan = self.plan
        before = self._bound if goes_on else -1.0
        self.state = new
        self._bound = steps.bound(self._nodes(), steps.share(new, plan) or 1.0, before)
        if not goes_on:
            self._rejections = []
            self._prometheus = PrometheusHealth(self._clock())
        self._health.begin(self._clock(), anew=not goes_on)

    def _take_back(self, new: State) -> None:
        """Serve all Envoys the stable version."""
        if self._store.candidate() is not None:
            self._store.take_back()
        self._set(new)

    async def _tick(self) -> None:
        state, now = self.state, self._clock()
        if not state.candidate or self._store.candidate() is None or self._newest is None:
            return  # after a restart, the plan is known when the gateway has been read
        rollout = self._rollout()
        plan = plan_of(rollout)
        while self._rejections and self.state.candidate:
            await self._move(steps.rejected(self.state, plan, self._rejections.pop(0), now))
        if not self.state.candidate:
            return
        self._cover(self._nodes(), steps.share(self.state, plan))
        envoys = self._envoys()
        chosen = [node for node in envoys if self._is_chosen(node)]
        late = sorted(node for node in chosen if not envoys[node])
        waiting = f"not acknowledged yet by {', '.join(late)}" if late else ""
        waiting = waiting or ("" if chosen else "no Envoy is connected")
        if self.state.since is None and not waiting:
            self._health.begin(now, anew=False)
        others = [node for node in envoys if not self._is_chosen(node)]
        verdict = await self._verdict(rollout, chosen, others, now)
        await self._move(steps.tick(self.state, plan, now, waiting, verdict))

    def _cover(self, nodes: list[str], share: float) -> None:
        """Choose an Envoy if none of the chosen ones is connected any more."""
        if nodes and not any(map(self._is_chosen, nodes)):
            self._bound = steps.bound(nodes, share, self._bound)
            self._store.choose(self._is_chosen)

    async def _verdict(self, rollout: Rollout, chosen: list[str], others: list[str], now: float) -> Verdict:
        limits = rollout.abort_if
        if rollout.source != LOAD_REPORTS and self._prometheus is not None:
            if self.state.since is None:
                return Verdict()
            seconds, source = now - self.state.since, rollout.source.prometheus
            return await self._prometheus.verdict(source, limits, chosen, others, seconds)
        limit = threshold(limits.error_rate, of_time=False) if limits.error_rate is not None else None
        return self._health.verdict(limit, chosen, now)

    async def _move(self, new: State) -> None:
        """Make another state the current one, and do what differs."""
        old = self.state
        if new.candidate and new.step != old.step:
            self._begin(new, goes_on=True)
            if self._bound >= 1:
                await self._inform()
            self._store.choose(self._is_chosen)
            self.changed()
            plan = self.plan
            log.info("rollout goes on version=%s step=%d of %d", new.candidate, new.step + 1, len(plan.steps))
        elif old.candidate and not new.candidate:
            await self._end(old, new)
        elif new != old:
            if new.waiting and new.waiting != old.waiting and new.since is not None:
                log.warning("rollout holds at step %d: %s", new.step + 1, new.waiting)
            self._set(new)

    async def _end(self, old: State, new: State) -> None:
        if new.withdrawn is not None:
            self._store.take_back()
            self.outcomes["withdrawn"] += 1
            log.error(
                "rollout withdrawn; all Envoys get the version of before; this one is not tried again version=%s "
                "step=%d reason=%s",
                _named(old.candidate, old.commit),
                old.step + 1,
                new.withdrawn.reason,
            )
        else:
            self._store.promote()
            self.outcomes["completed"] += 1
            log.info("rollout completed version=%s", _named(old.candidate, old.commit))
        self._set(new)
        try:
            async with asyncio.timeout(ACK_TIMEOUT):
                while not all(self._envoys().values()):  # noqa: ASYNC110 - streams have no common event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("not every Envoy has the version that it should have; rules change without waiting")
        await self._inform()

    async def _inform(self) -> None:
        """Give policy servers the rules of what is served now."""
        current = self._store.current()
        if current is not None:
            await self._publication.inform(self.rules(), current)

    def _set(self, new: State) -> None:
        unimportant = replace(self.state, since=new.since, waiting=new.waiting) == new
        self.state = new
        if not unimportant:
            self.changed()

    def _envoys(self) -> dict[str, bool]:
        """Return whether each connected Envoy has what it is served. An Envoy may have several streams."""
        found: dict[str, bool] = {}
        for client in self._clients():
            if not client.group:
                found[client.node] = client.current and found.get(client.node, True)
        return found

    def _nodes(self) -> list[str]:
        return list(self._envoys())

    def _is_chosen(self, node: str) -> bool:
        return steps.position(node) <= self._bound

    def _request_reports(self, rollout: Rollout) -> None:
        needed = rollout.source == LOAD_REPORTS and rollout.abort_if.error_rate is not None
        pause = rollout.pause.total_seconds()
        interval = min(2.0, max(0.5, pause / 10))
        self._health.interval, self._health.minimum = interval, rollout.minimum_requests
        self._health.window = max(pause, 10 * interval)
        self._reports.request(interval if needed and rollout.declared else None)

    def _report(self, report: LoadReport) -> None:
        if report.group:
            return
        chosen = bool(self.state.candidate) and self._is_chosen(report.node)
        counts = Counts(report.requests, report.errors)
        self._health.report(report.node, chosen, counts, report.seconds, self._clock())


def plan_of(rollout: Rollout) -> Plan:
    """Return the plan that a section `rollout` describes. After its last step all Envoys have the version."""
    return Plan(
        steps=tuple(one / 100 for one in rollout.steps),
        pause=rollout.pause.total_seconds(),
        rejections=rollout.abort_if.rejections,
    )


def _named(version: str, commit: str) -> str:
    return f"{version} (commit {commit[:12]})" if commit else version


def current_rollout(newest: Compiled | None) -> Rollout:
    """Return the section `rollout` of a gateway, an empty one if there is no gateway."""
    return newest.gateway.sections.rollout if newest is not None else NO_ROLLOUT
