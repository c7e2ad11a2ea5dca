"""What tests run in: a real Envoy with the gateway, the services that it needs, and its access log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from filters.policy_server import internal_cluster
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.publication import Publication
from xds_server.discovery.rejection import essence
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, ResourceType
from xds_server.errors import EnvironmentFailed
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.ports import ports
from xds_server.local_services import LocalServices, local_services
from xds_server.policy_server import file_clock
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.run_options import RunOptions
from xds_server.serving import groups
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.testing.stubbed import on_loopback, with_stubs
from xds_server.testing.stubs import Stubs
from xds_server.translate import names
from xds_server.translate.composer_entry import NODE_CLUSTER as COMPOSERS
from xds_server.translate.translator import Translator

PATIENCE = 60.0
"""Seconds in which Envoy must have started with the gateway, and in which a request must be in its log."""
_DAY = 24 * 3600
_FLUSH = 20
"""Milliseconds after which Envoy writes its log."""
_ARGUMENTS = ("--concurrency", "1", "--file-flush-interval-msec", str(_FLUSH))
_TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
"""The types of which Envoy has every resource."""
_GROUPS = (
    groups.Rule(group=POLICY_SERVERS, cluster=POLICY_SERVERS),
    groups.Rule(group=COMPOSERS, cluster=COMPOSERS),
    groups.Rule(group=""),
)


class AccessLog:
    """Envoy's log of the requests, by the value of the header that tells them apart."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self._entries: dict[str, Mapping[str, Any]] = {}

    async def entry(self, exchange: str, client: str) -> Mapping[str, Any]:
        """Wait for the entry of a request, and return it. Raises TimeoutError.

        Envoy knows no header of a request that it cannot parse. Such a request is found by the address of its client.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                self._refresh()
                for key in (exchange, client):
                    if key in self._entries:
                        return self._entries.pop(key)
                await asyncio.sleep(_FLUSH / 1000)

    def _refresh(self) -> None:
        try:
            with self._file.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._entries[entry.get("exchange") or entry.get("client") or ""] = entry


class LimitClock:
    """The clock of limits. It begins with the present day (UTC), and stands still until it is moved."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._now = int(time.time()) // _DAY * _DAY * 1_000_000
        self.move(timedelta(0))

    def move(self, by: timedelta) -> None:
        """Move it forward."""
        self._now += by // timedelta(microseconds=1)
        file_clock.write(self._file, self._now)


class RunningGateway:
    """A gateway in an Envoy, whose ports are others than it says. `ports` are those of its listeners, by name."""

    def __init__(
        self, listening: Mapping[str, int], log: AccessLog, clock: LimitClock, services_log: Path
    ) -> None:
        self.ports = listening
        self.log = log
        self.clock = clock
        self._services_log = services_log

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings and errors that the policy server has logged."""
        try:
            return tuple(warnings_of(self._services_log.read_text(errors="replace")))
        except FileNotFoundError:
            return ()


def warnings_of(log: str) -> Iterator[str]:
    """Yield the lines of warnings and errors of a log, with those that go on from them."""
    inside = False
    for line in log.splitlines():
        if not line.startswith("    "):
            inside = " INFO " not in line
        if inside:
            yield line


@asynccontextmanager
async def running(
    gateway: Gateway, source: Path, stubs: Stubs, folder: Path, envoy: Path, jwks: bytes
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway with stubs. `folder` is for temporary files. Raises EnvironmentFailed."""
    log, services_log = folder / "access.log", folder / "services.log"
    clock = LimitClock(folder / "clock")
    options = RunOptions(
        folder=source, envoy=envoy, drain=0.0, services_log=services_log, limit_clock=folder / "clock"
    )
    async with AsyncExitStack() as stack:
        services = await local_services(options, stack)
        stubbed = with_stubs(gateway, stubs.socket, jwks)
        translator = Translator(services.addresses, composer_calls=services.composer_calls)
        snapshot = translator.translate(stubbed)
        snapshot = on_loopback(snapshot, gateway.sections.upstreams, log)
        admin = await _serve(
            Compiled(gateway=stubbed, snapshot=snapshot, warnings=()), services, envoy, stack
        )
        opened = [one for one in ports(gateway.sections) if one.transport == "tcp" and one.first.bind]
        listening = await _listening(admin, {names.listener(port) for port in opened})
        by_listener = {name: listening[names.listener(port)] for port in opened for name in port.listeners}
        yield RunningGateway(by_listener, AccessLog(log), clock, services_log)


async def _serve(
    compiled: Compiled, services: LocalServices, envoy: Path, stack: AsyncExitStack
) -> EnvoySupervisor:
    """Start the services that a gateway needs, and an Envoy that has accepted it. Raises EnvironmentFailed."""
    store = Store(quarantine=True)
    fleet = Fleet(lambda _group, _type, _name: None)
    store.observe(fleet.observe)
    server = XdsServer(store, group_of=groups.Groups(*_GROUPS), limits=StreamLimits(bisect=True))
    stack.push_async_callback(server.stop, 0)
    await server.start(services.xds)
    start = {internal_cluster(name): service.ensure for name, service in services.own.items()}
    await Publication(store, fleet, start).publish(compiled)
    supervisor = EnvoySupervisor(
        envoy,
        bootstrap(xds_address=services.xds, node_id="test"),
        arguments=_ARGUMENTS,
        log_level="error",
        drain=0,
    )
    stack.push_async_callback(supervisor.stop)
    try:
        await supervisor.start()
    except OSError as error:
        raise EnvironmentFailed(f"Envoy could not be started: {error}") from None

    def wanted() -> Mapping[ResourceType, str]:
        """Return the versions of what is served, without what Envoy has rejected."""
        current = store.current() or compiled.snapshot
        return {type_: current.version(type_) for type_ in _TYPES if current[type_]}

    async with _patience("Envoy did not acknowledge the gateway"):
        await fleet.until_acknowledged("", wanted)
    rejected = [
        *(essence(one.message) for one in store.held("")),
        *(one.message for one in fleet.rejections("")),
    ]
    if rejected:
        raise EnvironmentFailed(f"Envoy rejects a part of the gateway: {rejected[0]}; `xds check` says which")
    return supervisor


async def _listening(envoy: EnvoySupervisor, wanted: AbstractSet[str]) -> Mapping[str, int]:
    """Wait until Envoy is ready and has the wanted listeners. Returns the ports of all by the names of Envoy's listeners."""
    async with _patience("Envoy did not become ready"), aiohttp.ClientSession() as session:
        while True:
            found = await _ports(session, envoy.admin)
            if found.keys() >= wanted:
                return found
            await asyncio.sleep(0.02)


async def _ports(session: aiohttp.ClientSession, admin: str | None) -> Mapping[str, int]:
    if admin is None:
        return {}
    try:
        async with session.get(f"http://{admin}/ready") as ready:
            if ready.status != 200:
                return {}
        async with session.get(f"http://{admin}/listeners?format=json") as response:
            listed = json.loads(await response.read()).get("listener_statuses", [])
    except (aiohttp.ClientError, OSError):
        return {}
    sockets = {one["name"]: one["local_address"].get("socket_address") for one in listed}
    return {name: socket["port_value"] for name, socket in sockets.items() if socket is not None}


@asynccontextmanager
async def _patience(failure: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError:
        raise EnvironmentFailed(f"{failure} within {PATIENCE:.0f} s") from None
