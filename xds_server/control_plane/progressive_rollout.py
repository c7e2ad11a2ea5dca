"""Progressive rollouts: a new version is served to some Envoys first, and withdrawn if it does harm.

Where a rollout stands is a record, on which all replicas of a control plane agree. Each serves its own Envoys what the
record says, and one of them says when a step ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from xds_server.control_plane import rollout_record as records
from xds_server.control_plane import rollout_replicas as replicas
from xds_server.control_plane import rollout_saved, rollout_status
from xds_server.control_plane import rollout_steps as steps
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.rollout_agreement import Agreement
from xds_server.control_plane.rollout_log import Ended, RolloutLog
from xds_server.control_plane.rollout_measurement import Measurement
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import Patience, Report
from xds_server.control_plane.rollout_saved import Saved
from xds_server.control_plane.rollout_serving import Newest, RolloutServing
from xds_server.control_plane.rollout_steps import NoRollout, Plan, State
from xds_server.control_plane.rollout_store import Unreachable
from xds_server.discovery.snapshot import Snapshot
from xds_server.gateway.model.rollout import Rollout
from xds_server.serving.events import Event, Nacked
from xds_server.serving.load_reports import LoadReports
from xds_server.serving.store import Store
from xds_server.translate import gateway_version

log = logging.getLogger(__name__)


class ProgressiveRollout:
    """Serves new versions, at once or step by step as their section `rollout` says.

    `plan` returns the section `rollout` of the newest gateway, and `commit` its commit. `at_once` is true if an operator has
    chosen the newest version, so that it has no steps and is not held. `changed` is called if there is something new to
    keep over a restart, and `ended` as RolloutLog says. Use it in the thread of the event loop.
    """

    def __init__(
        self,
        serving: RolloutServing,
        agreement: Agreement,
        store: Store,
        reports: LoadReports,
        *,
        plan: Callable[[], Rollout],
        commit: Callable[[], str] = lambda: "",
        at_once: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kept = False
        """True if the state is kept over a restart, in `saved`."""
        self.changed: Callable[[], None] = lambda: None
        self.ended: Ended = lambda _commit, _reason: None
        self._serving, self._agreement, self._store = serving, agreement, store
        self._rollout, self._commit, self._at_once, self._clock = plan, commit, at_once, clock
        self._newest: Newest | None = None
        self._caught_up = -1
        """The number of the proposal that was the newest version here, too."""
        self._lost, self._deserted = Patience(replicas.LOST_AFTER), Patience(replicas.DESERTED_AFTER)
        self._told = Record()
        """The record that the log has told of."""
        self._rejections: list[tuple[int, str]] = []
        """What Envoys have rejected, with the number of the proposal, until the record counts it."""
        self._measurement = Measurement(reports, self._is_chosen, clock)
        self._log = RolloutLog(lambda commit, reason: self.ended(commit, reason))
        self._lock, self._bell = asyncio.Lock(), asyncio.Event()

    @property
    def state(self) -> State:
        """Where the rollout stands, as this replica knows it."""
        state = self._agreement.record.state
        return replace(state, waiting=self.problem or state.waiting)

    @property
    def problem(self) -> str:
        """Why this replica does not serve what the replicas agree on, or cannot know it; empty if it does."""
        if self._agreement.problem:
            return self._agreement.problem
        lacks = self._serving.lacks(self._agreement.record)
        return f"this control plane does not have version {lacks}" if lacks and self._agreement.shared else ""

    @property
    def newest_withdrawn(self) -> str:
        """Why the version that was read last is not served, empty if it was not withdrawn."""
        withdrawn = self._agreement.record.state.withdrawn
        newest = self._newest.version if self._newest is not None else None
        return withdrawn.reason if withdrawn is not None and withdrawn.version == newest else ""

    @property
    def outcomes(self) -> Mapping[str, int]:
        """The number of rollouts that ended, by outcome."""
        return self._log.outcomes

    @property
    def plan(self) -> Plan:
        """The plan of the newest gateway."""
        return steps.plan_of(self._serving.section_for(self._rollout()))

    async def publish(self, compiled: Compiled) -> None:
        """Serve a gateway: to the Envoys of the first step, or to all."""
        async with self._lock:
            version = gateway_version.portable(compiled.snapshot)
            rollout = self._serving.section_for(self._rollout())
            self._newest = Newest(
                version=version, compiled=compiled, commit=self._commit(), ordered=self._at_once()
            )
            self._measurement.request(rollout)
            if rollout.declared:
                self._log.tell_of_sharing(self._agreement.store, kept=self.kept)
            withdrawn = self._agreement.record.state.withdrawn
            await self._agree()
            if version not in (self._serving.stable, self._serving.candidate):
                state = self._agreement.record.state
                if state.withdrawn == withdrawn or self.problem:
                    self._log.tell_of_newest(version, state, self.problem)

    async def unchanged(self, compiled: Compiled) -> None:
        """Note a gateway that Envoys would be sent as the one before, but that may have another section `rollout`."""
        async with self._lock:
            version = gateway_version.portable(compiled.snapshot)
            if self._newest is not None and self._newest.version == version:
                self._newest = replace(self._newest, compiled=compiled)
            await self._serving.adopt(version, compiled)

    async def run(self, interval: float = 0.25) -> None:
        """Go on with rollouts until cancelled. With other replicas, `interval` is longer."""
        while True:
            self._bell.clear()
            try:
                async with asyncio.timeout(self._interval(interval)):
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
        self._measurement.observe(event)
        if not isinstance(event, Nacked) or event.group or not self._serving.candidate:
            return
        versions = event.blamed or event.versions
        if any(self._store.only_of_candidate(event.type, name, one) for name, one in versions.items()):
            self._rejections.append((self._serving.number, f"node {event.node.id}: {event.message}"))
            self._bell.set()

    async def promote(self) -> None:
        """Serve the new version to all. Raises NoRollout."""
        async with self._lock:
            await self._agree()
            state = self._agreement.record.state
            if steps.promoted(state) == state:
                raise NoRollout("there is no rollout, and no version was withdrawn")
            known = self._newest is not None and self._newest.version
            if not state.candidate and state.withdrawn is not None and known != state.withdrawn.version:
                raise NoRollout("the version that was withdrawn is not known any more; commit it again")
            log.info("serving version %s to all Envoys by order", steps.promoted(state).stable)
            await self._order(steps.promoted)

    async def abort(self) -> None:
        """Withdraw the new version. Raises NoRollout."""
        async with self._lock:
            await self._agree()
            self._need()
            await self._agreement.withdraw("by order of an operator", self._clock())
            await self._follow()

    async def pause(self, pause: bool) -> None:
        """Stay at the step until told otherwise, or go on. Raises NoRollout."""
        async with self._lock:
            await self._agree()
            self._need()
            await self._order(lambda state: steps.paused(state, pause))

    async def _order(self, rule: Callable[[State], State]) -> None:
        number = self._agreement.record.number
        try:
            await self._agreement.change(
                lambda record: (
                    records.moved(record, rule(record.state)) if record.number == number else record
                )
            )
        except Unreachable as error:
            raise NoRollout(f"nothing has changed, because the rollout is not known now: {error}") from None
        await self._follow()

    def _need(self) -> None:
        if not self._agreement.record.state.candidate:
            raise NoRollout("there is no rollout")

    def as_json(self) -> dict[str, Any]:
        """The state for machines."""
        reports, minimum = self._all_reports(), self._serving.section_for(self._rollout()).minimum_requests
        return {
            **rollout_status.as_json(self.state, self._agreement.record, self.plan, reports, minimum),
            "outcomes": dict(self.outcomes),
            "store": self._agreement.store,
            "problem": self.problem,
        }

    def version_of(self, node: str) -> str:
        """Return the version that a node is served, or an empty text."""
        return self._serving.version_of(node)

    def saved(self) -> Mapping[str, Snapshot]:
        """Return what is kept over a restart."""
        serving = self._serving
        candidate = self._store.accepted(candidate=True)
        return rollout_saved.snapshots(
            Saved(self._agreement.record, serving.stable, serving.candidate, candidate, serving.section)
        )

    def restore(self, kept: Mapping[str, Snapshot]) -> None:
        """Go on where the rollout stood before a restart. The pause of its step begins again."""
        try:
            saved = rollout_saved.read(kept)
        except ValueError as error:
            log.warning("the state of the rollout cannot be read; there is none error=%s", error)
            return
        if saved is None:
            return
        record = self._told = saved.record
        self._serving.section = saved.section
        self._agreement.restore(record)
        self._serving.restore(saved.stable, saved.offered, saved.candidate, record)
        self._measurement.begin(anew=True)
        if record.state.candidate:
            log.info(
                "the rollout goes on at step %d version=%s", record.state.step + 1, record.state.candidate
            )

    async def _tick(self) -> None:
        await self._agree()
        if self._agreement.record.state.candidate and self._newest is not None:
            await self._judge()
            await self._follow()

    async def _agree(self) -> None:
        """Exchange reports with the other replicas, propose the newest version if it is new, and follow."""
        await self._agreement.exchange(self._report())
        with suppress(Unreachable):  # `problem` says it, and the next exchange proposes again
            await self._propose()
        await self._follow()

    async def _propose(self) -> None:
        newest, record = self._newest, self._agreement.record
        if newest is None or self._agreement.problem:
            return
        if newest.version == record.newest and not newest.ordered:
            self._caught_up = record.number
            self._lost.over(False, self._agreement.now)
            return
        plan, lost = self.plan, self._is_lost(record)
        alone = not self._agreement.shared and not self._agreement.restored and not self._serving.envoys()
        nodes = list(replicas.nodes(self._agreement.reports))

        def rule(record: Record) -> Record:
            if not newest.ordered and not records.proposes(
                record, newest.version, self._caught_up, lost=lost
            ):
                return record
            steps_of = Plan() if alone else plan
            new = records.proposed(record, newest.version, steps_of, newest.commit, ordered=newest.ordered)
            return replace(new, bound=steps.bound(nodes, steps.share(new.state, plan), new.bound))

        await self._agreement.change(rule)
        if self._agreement.record.newest == newest.version:
            self._caught_up, self._newest = self._agreement.record.number, replace(newest, ordered=False)

    def _is_lost(self, record: Record) -> bool:
        """True if no replica has the newest version any more, and that for a while: the one that proposed it has ended."""
        lost = not any(one.newest in ("", record.newest) for one in self._agreement.reports)
        return self._lost.over(lost, self._agreement.now) or (lost and not self._agreement.shared)

    async def _follow(self) -> None:
        """Serve what the record says, and tell it."""
        while True:
            record = self._agreement.record
            serving = (self._serving.stable, self._serving.candidate)
            held = await self._serving.follow(record, self._newest)
            self._rejections.extend((record.number, one) for one in held)
            await self._count_rejections()
            if serving != (self._serving.stable, self._serving.candidate):
                self.changed()
            if not held and record == self._agreement.record:
                self._tell(record)
                return

    async def _count_rejections(self) -> None:
        """Count rejections in the record. Without a store they count here only."""
        plan, now = self.plan, self._clock()
        while self._rejections and self._newest is not None:
            number, reason = self._rejections[0]
            rule = partial(records.rejected, number=number, plan=plan, reason=reason, now=now)
            withdrawn = rule(self._agreement.record).state.withdrawn
            if withdrawn is not None and withdrawn != self._agreement.record.state.withdrawn:
                await self._agreement.withdraw(withdrawn.reason, now)
            else:
                try:
                    await self._agreement.change(rule)
                except Unreachable:
                    return
            self._rejections.pop(0)

    async def _judge(self) -> None:
        """Say whether a step ends, if it is for this replica to say. Without a store, our own Envoys can withdraw a version."""
        record, unreachable = self._agreement.record, self._agreement.problem
        reports = self._all_reports()
        if not unreachable and replicas.judge(record, reports) != self._agreement.replica:
            return
        rollout = self._serving.section_for(self._rollout())
        plan, now = steps.plan_of(rollout), self._agreement.now
        nodes = list(replicas.nodes(reports))
        verdict = await self._measurement.verdict(rollout, record, reports, now)
        if unreachable:
            if verdict.violation:
                await self._agreement.withdraw(verdict.violation, self._clock())
            return
        waiting = replicas.waiting(record, reports) if plan.steps else replicas.UNKNOWN_STEPS
        state = steps.tick(record.state, plan, now, waiting, verdict)
        bound, deserted = record.bound, self._is_deserted(record, nodes)
        if state.step != record.state.step or deserted:
            bound = steps.bound(nodes, steps.share(state, plan), bound)
        new = replace(record, state=state, bound=bound)
        with suppress(Unreachable):  # `problem` says it
            await self._agreement.change(lambda found: new if found == record else found)

    def _is_deserted(self, record: Record, nodes: list[str]) -> bool:
        """True if none of the chosen Envoys is connected any more, and that for so long that it does not just reconnect."""
        deserted = not any(replicas.is_chosen(record, node) for node in nodes)
        return self._deserted.over(deserted, self._agreement.now) or (deserted and record.bound < 0)

    def _all_reports(self) -> tuple[Report, ...]:
        """Return the reports of all replicas, with our own as it is now."""
        own = self._report()
        if self._agreement.problem:
            return (own,)
        return (own, *(one for one in self._agreement.reports if one.replica != own.replica))

    def _report(self) -> Report:
        nodes = self._serving.envoys()
        return Report(
            replica=self._agreement.replica,
            number=self._told.number,
            step=self._told.state.step,
            since=self._told.state.since,
            newest=self._newest.version if self._newest is not None else "",
            stable=self._serving.stable,
            candidate=self._serving.candidate,
            nodes=nodes,
            figures=self._measurement.figures(nodes),
        )

    def _interval(self, interval: float) -> float | None:
        """Return the seconds to the next look at the record, None if nothing but a new version can change it."""
        if not self._agreement.shared:
            return interval if self._agreement.record.state.candidate else None
        return 2 * interval if self._agreement.record.state.candidate else 4 * interval

    def _is_chosen(self, node: str) -> bool:
        return bool(self._serving.candidate) and self._serving.is_chosen(node)

    def _tell(self, new: Record) -> None:
        """Log what has changed in the record, and begin to measure for a new step."""
        old, self._told = self._told, new
        before, state = old.state, new.state
        another = (old.number, before.candidate) != (new.number, state.candidate)
        if another or before.step != state.step or (before.since is None) != (state.since is None):
            self._measurement.begin(anew=another)
        unimportant = replace(before, since=state.since, waiting=state.waiting) == state
        if not unimportant or old.number != new.number:
            self.changed()
        if another:
            self._deserted.over(False, self._agreement.now)
            self._bell.set()
        if new != old:
            nodes = replicas.nodes(self._all_reports())
            chosen = sum(replicas.is_chosen(new, node) for node in nodes)
            self._log.tell(old, new, self.plan, chosen, len(nodes))
        self._log.tell_of_problem("" if self._agreement.problem else self.problem)
