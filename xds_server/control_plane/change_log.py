"""One line for each change: what changed, and how long it took until all connected Envoys had it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from xds_server.control_plane.control_loop import GatewayState, Published
from xds_server.control_plane.fleet import EnvoyState, Fleet, Served
from xds_server.translate.diff import Change, objects

log = logging.getLogger(__name__)

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_NAMED = 5
"""Changed objects that a line names."""
PATIENCE = 30.0
"""Seconds in which Envoys should acknowledge a change. The log names the number of those that have not."""


def summary(changes: Iterable[Change]) -> str:
    """Return the changes in a few words: ``+routes.a ~upstreams.b(endpoints)``."""
    words = [
        f"{_SIGNS[one.what]}{one.kind}.{one.name}" + (f"({','.join(one.keys)})" if one.keys else "")
        for one in changes
    ]
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return " ".join(words[:_NAMED]) + more


def status_line(gateway: GatewayState, states: Sequence[EnvoyState]) -> str:
    """Return one line about the gateway for a terminal."""
    if gateway.compiled is None:
        return "nothing is served yet" if not gateway.restored else "the last good gateway is served"
    parts = [
        f"{len(gateway.compiled.gateway.sections.routes)} routes",
        f"{states.count('current')} of {len(states)} Envoys current",
    ]
    if rejecting := states.count("rejecting"):
        parts.append(f"{rejecting} rejecting")
    if gateway.errors or gateway.unreadable:
        parts.append("newer files have errors")
    elif gateway.problems:
        parts.append(f"{len(gateway.problems)} warnings")
    return "  ".join(parts)


async def show_status(
    show: Callable[[str], None], gateway: GatewayState, states: Callable[[], Sequence[EnvoyState]]
) -> None:
    """Show a line about the gateway every second until cancelled."""
    try:
        while True:
            show(status_line(gateway, states()))
            await asyncio.sleep(1)
    finally:
        show("")


class ChangeLog:
    """Logs published gateways, and when the fleet has the newest one."""

    def __init__(self, fleet: Fleet, served: Served, *, patience: float = PATIENCE) -> None:
        self._fleet, self._served, self._patience = fleet, served, patience
        self._waiting: asyncio.Task[None] | None = None

    def published(self, before: Published | None, now: Published) -> None:
        """Log a gateway that was published in the place of another one, None for the first."""
        sections = now.gateway.sections
        what = f" changed='{summary(objects(before.gateway, now.gateway))}'" if before is not None else ""
        log.info(
            "gateway published routes=%d upstreams=%d in=%.0fms%s",
            len(sections.routes),
            len(sections.upstreams),
            now.seconds * 1000,
            what,
        )
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = asyncio.create_task(self._arrived()) if before is not None else None

    async def _arrived(self) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience):
                await self._fleet.until_current(self._served)
        except TimeoutError:
            states = self._fleet.states(self._served)
            late = len(states) - states.count("current")
            log.warning("not every Envoy has the change yet envoys=%d late=%d", len(states), late)
            return
        count = len(self._fleet.states(self._served))
        if count:
            log.info("in service envoys=%d after=%.0fms", count, (time.perf_counter() - began) * 1000)
