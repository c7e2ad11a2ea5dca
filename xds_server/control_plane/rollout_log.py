"""What the log says of a rollout, and how many have ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

from xds_server.control_plane.rollout_health import FIRST_REPORTS
from xds_server.control_plane.rollout_record import Record
from xds_server.control_plane.rollout_replicas import DESERTED
from xds_server.control_plane.rollout_steps import Plan, State

log = logging.getLogger(__name__)

Ended = Callable[[str, str], None]


class RolloutLog:
    """Tells of each change of the record once. `outcomes` counts the rollouts that ended.

    `ended` is called with the commit of a version that was withdrawn and the reason, and without a reason if it is served
    to all after that.
    """

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self.outcomes = {"completed": 0, "withdrawn": 0}
        self._problem = ""
        self._alone = False

    def tell(self, old: Record, new: Record, plan: Plan, chosen: int, envoys: int) -> None:
        """Tell what differs between two records. `chosen` of the connected `envoys` have the candidate."""
        before, state = old.state, new.state
        if state.candidate:
            self._tell_of_step(old, new, plan, chosen, envoys)
        elif state.withdrawn is not None and state.withdrawn != before.withdrawn:
            self.outcomes["withdrawn"] += 1
            step = before.step + 1 if before.candidate == state.withdrawn.version else 1
            log.error(
                "rollout withdrawn; all Envoys get the version of before; this one is not tried again version=%s "
                "step=%d reason=%s",
                named(state.withdrawn.version, state.withdrawn.commit),
                step,
                state.withdrawn.reason,
            )
            self._ended(state.withdrawn.commit, state.withdrawn.reason)
        elif before.withdrawn is not None and state.stable == before.withdrawn.version:
            self._ended(before.withdrawn.commit, "")
        elif before.candidate and state.stable == before.candidate:
            self.outcomes["completed"] += 1
            log.info("rollout completed version=%s", named(before.candidate, before.commit))

    def _tell_of_step(self, old: Record, new: Record, plan: Plan, chosen: int, envoys: int) -> None:
        before, state = old.state, new.state
        what = (named(state.candidate, state.commit), state.step + 1, len(plan.steps))
        if (old.number, before.candidate) != (new.number, state.candidate) and state.step == 0:
            log.info("rollout begins version=%s step=%d of %d envoys=%d of %d", *what, chosen, envoys)
        elif (old.number, before.step) != (new.number, state.step):
            log.info("rollout goes on version=%s step=%d of %d", *what)
        remarkable = state.since is not None and state.waiting != FIRST_REPORTS
        if state.waiting not in ("", before.waiting) and (remarkable or state.waiting == DESERTED):
            log.warning("rollout holds at step %d: %s", state.step + 1, state.waiting)

    def tell_of_newest(self, version: str, state: State, problem: str) -> None:
        """Tell why the version that was read last is not served."""
        if state.withdrawn is not None and state.withdrawn.version == version:
            log.warning(
                "version %s is not served, because it was withdrawn: %s; `xds rollout promote` serves it",
                named(version, state.withdrawn.commit),
                state.withdrawn.reason,
            )
        else:
            log.warning(
                "version %s is not served now: %s", version, problem or "the replicas serve a newer one"
            )

    def tell_of_problem(self, problem: str) -> None:
        """Tell that this replica cannot serve what the replicas agree on."""
        if problem and problem != self._problem:
            log.warning("what is served here stays: %s", problem)
        self._problem = problem

    def tell_of_sharing(self, store: str, *, kept: bool) -> None:
        """Tell once with whom rollouts are shared, and whether they survive a restart."""
        if self._alone:
            return
        self._alone = True
        if store:
            log.info("rollouts are shared with all replicas at the store store=%s", store)
        else:
            log.info(
                "rollouts concern the Envoys of this control plane only; replicas share them with --rollout-store"
            )
        if not kept:
            log.warning(
                "after a restart, this control plane does not have the version of before; see --state"
                if store
                else "rollouts do not survive a restart, which would serve the newest version to all; see --state"
            )


def named(version: str, commit: str) -> str:
    """Return a version with its commit, for people."""
    return f"{version} (commit {commit[:12]})" if commit else version
