"""What becomes of each commit: a good one is remembered for a rollback, and the forge is told of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from xds_server.control_plane.control_loop import JudgedVersion
from xds_server.control_plane.preview_bindings import Binding
from xds_server.control_plane.progressive_rollout import ProgressiveRollout
from xds_server.discovery.rejection import essence
from xds_server.serving.events import Held
from xds_server.sources.commit_status import CommitStatus, CommitStatuses, Forge
from xds_server.sources.git_source import GitSource


class CommitOutcomes:
    """Takes the judged versions of a source, which have no meaning here if it is a folder on disk.

    `held` returns what the Envoys of a group in the store are not served as written. Commits that `rollout` withdraws are
    forgotten.
    """

    def __init__(
        self,
        git: GitSource | None,
        forge: Forge | None,
        held: Callable[[str], Iterable[Held]],
        rollout: ProgressiveRollout,
    ) -> None:
        self._git, self._held, self._rollout = git, held, rollout
        self._tried: dict[str, list[str]] = {}
        """The commits of the version that a rollout tries. Those that change only comments have the same version."""
        rollout.ended = self.ended
        self._statuses = CommitStatuses(forge) if forge is not None else None

    def judged(self, found: JudgedVersion) -> None:
        """Remember a good commit, and tell the forge soon."""
        reason = self._rollout.newest_withdrawn if not found.problems else ""
        if reason:
            self.ended(found.version.id, reason)
            return
        if self._git is not None and not found.problems:
            self._git.pins.note_served(found.version.id)
            candidate = self._rollout.state.candidate
            self._tried = (
                {candidate: [*self._tried.get(candidate, ()), found.version.id]} if candidate else {}
            )
        self._tell(found, self._held(""), "")

    def judged_preview(self, of: Binding, found: JudgedVersion) -> None:
        """Tell the forge of a commit that is previewed."""
        self._tell(found, self._held(of.name), of.group)

    def _tell(self, found: JudgedVersion, held: Iterable[Held], group: str) -> None:
        if self._statuses is not None:
            rejected = (f"{one.place or one.name}: rejected by Envoy: {essence(one.message)}" for one in held)
            problems = found.problems or tuple(rejected)
            self._statuses.tell(CommitStatus.of(found.version, problems, group))

    def ended(self, commit: str, reason: str) -> None:
        """A rollout has withdrawn a commit for a reason, or without one, it is served to all after it was withdrawn."""
        if self._git is None or not commit:
            return
        if reason:
            for one in (commit, *(one for several in self._tried.values() for one in several)):
                self._git.pins.forget_served(one)
            self._tried = {}
        else:
            self._git.pins.note_served(commit)
        if self._statuses is not None:
            self._statuses.tell(CommitStatus.of_rollout(commit, reason))

    async def run(self) -> None:
        """Send statuses to the forge until cancelled. Returns at once if there is none."""
        if self._statuses is not None:
            await self._statuses.run()
