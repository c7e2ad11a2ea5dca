"""Logs the addresses of the gateway when it is ready, and other processes that listen at them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from xds_server.control_plane.control_loop import GatewayState
from xds_server.discovery.types import LISTENER
from xds_server.gateway.model.listeners import Listener
from xds_server.processes.listening_ports import ports_of
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.serving.events import Acked, Event, Nacked
from xds_server.serving.store import Store

log = logging.getLogger(__name__)

PATIENCE, LOOK = 10.0, 0.02
"""Seconds in which a port must open after Envoy has accepted its listener, and seconds between two checks."""


class ReadinessLog:
    """Logs each new set of listeners.

    With an `envoy` on this machine, it logs when Envoy has opened their ports; without one, when an Envoy has
    accepted them.
    """

    def __init__(self, serving: GatewayState, store: Store, envoy: EnvoySupervisor | None) -> None:
        self._serving = serving
        self._store = store
        self._envoy = envoy
        self._logged: tuple[str, ...] = ()
        self._looking: asyncio.Task[None] | None = None

    def observe(self, event: Event) -> None:
        """Handle one event of a store. Even if Envoy rejects a response, it may have accepted other listeners of it."""
        if not isinstance(event, Acked | Nacked) or event.group or event.type != LISTENER:
            return
        if self._serving.compiled is None:
            return
        held = {
            path[-1]
            for resource in self._store.held()
            if resource.type == LISTENER
            for path in (
                [resource.origin] if resource.origin else self._serving.origins(LISTENER, resource.name)
            )
        }
        listeners = {
            name: listener
            for name, listener in self._serving.compiled.gateway.sections.listeners.items()
            if name not in held
        }
        if self._envoy is not None:
            if self._looking is not None:
                self._looking.cancel()
            self._looking = asyncio.create_task(self._open(listeners, self._envoy))
        elif isinstance(event, Acked):
            self._log(listeners)

    async def _open(self, listeners: Mapping[str, Listener], envoy: EnvoySupervisor) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while True:
            opened = await asyncio.to_thread(ports_of, envoy.pid) if envoy.pid is not None else {}
            waiting = [
                one
                for one in listeners.values()
                if one.bind and one.protocol != "udp" and one.port not in opened
            ]
            if loop.time() > end or not waiting:
                break
            await asyncio.sleep(LOOK)
        if not self._log({name: one for name, one in listeners.items() if one not in waiting}):
            return
        for name, listener in listeners.items():
            if listener.protocol != "udp" and opened.get(listener.port):
                log.warning(
                    "listener '%s': another process listens on port %d too and gets a part of the connections; "
                    "stop it, or choose another port",
                    name,
                    listener.port,
                )

    def _log(self, listeners: Mapping[str, Listener]) -> bool:
        """Log the addresses of the gateway. Returns False if they were logged already."""
        urls = tuple(dict.fromkeys(map(_url, listeners.values())))
        news = urls != self._logged
        self._logged = urls
        if news and urls:
            log.info("ready %s", " ".join(urls))
        return news


def _url(listener: Listener) -> str:
    scheme = listener.protocol if listener.protocol != "http" else "https" if listener.tls else "http"
    return f"{scheme}://{_host(listener.address)}:{listener.port}"


def _host(address: str) -> str:
    if address in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{address}]" if ":" in address else address
