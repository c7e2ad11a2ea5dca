"""The control loop: it compiles its source after every change, and publishes it, or reports its errors."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field, fields
from typing import Any

from filters.language import Path, Place, Problem
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.types import ResourceType
from xds_server.errors import InvalidGateway, UnreadableFolder
from xds_server.gateway.model.gateway import Gateway, Sections
from xds_server.gateway.model.ports import ports
from xds_server.sources.source import Source, SourceState, Version
from xds_server.translate import gateway_version, names

log = logging.getLogger(__name__)

Outcome = Compiled | UnreadableFolder | InvalidGateway
"""The result of compiling a source."""


@dataclass(frozen=True, slots=True)
class Published:
    """A gateway that was published `at` a moment (Unix time), `seconds` after its folder changed."""

    at: float
    seconds: float
    gateway: Gateway


@dataclass(frozen=True, slots=True)
class JudgedVersion:
    """A version of the gateway that is served, or that is not because of `problems`."""

    version: Version
    problems: tuple[str, ...] = ()


HISTORY = 20
"""Published gateways that are remembered. They share all objects that did not change."""


@dataclass(slots=True)
class GatewayState:
    """The gateway that is served, and the errors of newer states.

    `since` is Unix time. `compiled` is the last good gateway, None before the first one. `problems` and `unreadable`
    are those of the newest state of the source, so they are empty if that state is served.
    """

    folder: str
    compiled: Compiled | None = None
    since: float = 0.0
    problems: tuple[Problem, ...] = ()
    unreadable: str = ""
    changes: int = field(default=0)
    history: deque[Published] = field(default_factory=lambda: deque(maxlen=HISTORY))
    version: Version | None = None
    """The version of the served gateway, None if its source has none."""
    commits: dict[str, Version] = field(default_factory=dict)
    """The versions of the source that were good, by the version of their content."""
    newest: Version | None = None
    """The version of the newest state of the source, which is not served if it has errors."""
    newest_since: float = 0.0
    """When that version was seen first, in Unix time."""
    restored: bool = False
    """True if the last good gateway of before a restart is served until there is a newer one."""

    @property
    def something(self) -> bool:
        """True if any gateway is served."""
        return self.restored or self.compiled is not None

    @property
    def healthy(self) -> bool:
        """True if the newest state of the source is served."""
        return self.compiled is not None and not self.unreadable and not self.errors

    def note(self, version: Version, content: str) -> None:
        """Remember the version of the source that has a content now."""
        self.commits.pop(content, None)
        self.commits[content] = version
        if len(self.commits) > HISTORY:
            del self.commits[next(iter(self.commits))]

    def place(self, path: Path) -> Place | None:
        """Return the place in the YAML of a path of the served gateway, or None if it is unknown."""
        return self.compiled.gateway.place(path) if self.compiled is not None and path else None

    def place_of(self, type_: ResourceType, name: str) -> Place | None:
        """Return the place in the YAML of the object that a resource was made from, or None if it is unknown."""
        return next(map(self.place, self.origins(type_, name)), None)

    def origins(self, type_: ResourceType, name: str) -> tuple[Path, ...]:
        """Return the paths of the objects of the served gateway that a resource was made from."""
        found = ports(self.compiled.gateway.sections) if self.compiled is not None else ()
        return names.origins(type_.name, name, found)

    @property
    def behind(self) -> float:
        """When the newest version was seen, in Unix time, if it is not the served one; 0 if it is."""
        served = self.version.id if self.version is not None else ""
        return self.newest_since if self.newest is not None and self.newest.id != served else 0.0

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors that keep the newest state from being served."""
        return tuple(one for one in self.problems if one.severity == "error")


def _unsent(compiled: Compiled) -> tuple[object, ...]:
    """Return the sections that Envoys are not sent. The first group that matches a node decides, so their order counts."""
    return compiled.gateway.sections.rollout, list(compiled.gateway.sections.groups.items())


def _same_snapshot(before: Compiled, after: Compiled) -> bool:
    return before.snapshot.versions == after.snapshot.versions


class _Labelled(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        label = (self.extra or {})["label"]
        return f"{label}: {msg}" if label else msg, kwargs


class ControlLoop:
    """Follows a source. It calls `publish` with every good gateway that differs from the previous one.

    When that is done, it calls `published` with the previous one and the new one. It calls `judged` with each version
    of the source, again only if its problems change. `unchanged` is called with a good gateway
    that is the `same` as the previous one (by default: Envoys would be sent the same), if something that they are not sent
    has changed. Messages in the log begin with `label`.
    """

    def __init__(
        self,
        source: Source,
        compiler: Compiler,
        publish: Callable[[Compiled], Awaitable[None]],
        published: Callable[[Published | None, Published], None] = lambda _before, _now: None,
        judged: Callable[[JudgedVersion], None] = lambda _verdict: None,
        *,
        unchanged: Callable[[Compiled], Awaitable[None]] | None = None,
        same: Callable[[Compiled, Compiled], bool] = _same_snapshot,
        label: str = "",
    ) -> None:
        self.serving = GatewayState(source.name)
        self._source = source
        self._compiler = compiler
        self._publish, self._published, self._judged = publish, published, judged
        self._unchanged, self._same = unchanged, same
        self._log = _Labelled(log, {"label": label})
        self._verdict: JudgedVersion | None = None
        self._last: tuple[object, ...] = ()

    async def run(self) -> None:
        """Follow the source until cancelled. A gateway with errors never replaces a good one."""
        changes = self._source.changes()
        try:
            async for state in changes:
                began = time.perf_counter()
                outcome = self._compile(state)
                if self._doubtful(state, outcome):
                    state = await self._source.settled()
                    outcome = self._compile(state)
                await self._take(outcome, began, state.version)
                self._judge(state.version)
                self._source.refer_to(state.reads)
        finally:
            await changes.aclose()

    def _compile(self, state: SourceState) -> Outcome:
        try:
            return self._compiler.compile(state)
        except (UnreadableFolder, InvalidGateway) as error:
            return error
        except Exception as error:
            log.exception("the gateway could not be read: this is a fault of xds, please report it")
            return UnreadableFolder(f"the gateway was not read because of a fault of xds: {error!r}")

    def _doubtful(self, state: SourceState, outcome: Outcome) -> bool:
        """True if a state looks like the middle of a change: it has errors, or objects are missing.

        Editors empty a file before they write it, and git removes files before it writes others.
        """
        served = self.serving.compiled
        if served is None:
            return False
        if not isinstance(outcome, Compiled) or not all(state.files.values()):
            return True
        before, after = served.gateway.sections, outcome.gateway.sections
        pairs = [(getattr(before, field.name), getattr(after, field.name)) for field in fields(Sections)]
        return any(was is not now and was.keys() - now.keys() for was, now in pairs)

    def _judge(self, version: Version | None) -> None:
        if version is None:
            return
        serving = self.serving
        if serving.newest is None or serving.newest.id != version.id:
            serving.newest, serving.newest_since = version, time.time()
        unreadable = (serving.unreadable,) if serving.unreadable else ()
        verdict = JudgedVersion(version, (*unreadable, *map(str, serving.errors)))
        if verdict != self._verdict:
            self._verdict = verdict
            self._judged(verdict)

    async def _take(self, outcome: Outcome, began: float, version: Version | None) -> None:
        """Publish a compiled gateway, or report its errors."""
        serving = self.serving
        match outcome:
            case UnreadableFolder():
                self._report((), str(outcome), version)
                return
            case InvalidGateway():
                self._report(outcome.problems, "", version)
                return
        self._report(outcome.warnings, "", version)
        if version is not None and version != serving.version:
            self._log.info(
                "serving commit=%s author=%s subject=%s", version.id, version.author, version.subject
            )
        serving.version = version
        if version is not None:
            serving.note(version, gateway_version.portable(outcome.snapshot))
        if serving.compiled is not None and self._same(serving.compiled, outcome):
            earlier, serving.compiled = serving.compiled, outcome
            if self._unchanged is not None and _unsent(earlier) != _unsent(outcome):
                await self._unchanged(outcome)
            return
        serving.compiled, serving.since = outcome, time.time()
        serving.changes += 1
        await self._publish(outcome)
        seconds = time.perf_counter() - began
        before = serving.history[-1] if serving.history else None
        serving.history.append(Published(serving.since, seconds, outcome.gateway))
        self._published(before, serving.history[-1])

    def _report(self, problems: tuple[Problem, ...], unreadable: str, version: Version | None) -> None:
        """Log the problems, once for each different state."""
        serving = self.serving
        state = (problems, unreadable)
        serving.problems, serving.unreadable = problems, unreadable
        if state == self._last:
            return
        corrected, self._last = bool(self._last and any(self._last)), state
        for problem in problems:
            self._log.log(logging.ERROR if problem.severity == "error" else logging.WARNING, "%s", problem)
        if unreadable:
            self._log.error("%s", unreadable)
        if unreadable or serving.errors:
            kept = "the last good gateway stays in service" if serving.something else "nothing is served yet"
            who = "" if version is None else f" in commit {version.id[:12]} of {version.author}"
            what = "cannot be read" if unreadable and version is None else "has errors"
            self._log.error("the gateway %s%s; %s", what, who, kept)
        elif corrected:
            self._log.info("the gateway has no errors any more")
