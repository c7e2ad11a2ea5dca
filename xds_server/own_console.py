"""The console of `xds run`: its port, and what it reads from the processes beside it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from filters.policy_server import SERVICE
from xds_server import joined_metrics
from xds_server.admin import ask
from xds_server.admin_pages import STATUS_TIMEOUT, in_event_loop
from xds_server.console.console import Console
from xds_server.console.source import Source
from xds_server.control_plane.status import ObjectStatus, StatusReader
from xds_server.errors import WrongUsage
from xds_server.local_services import LocalServices
from xds_server.processes.addresses import failed_to_listen, split
from xds_server.run_options import CONSOLE, RunOptions

log = logging.getLogger(__name__)


async def open_console(
    options: RunOptions,
    services: LocalServices,
    envoy: Callable[[], tuple[str, int] | None],
    status: StatusReader,
    stack: AsyncExitStack,
) -> None:
    """Open the port of the console. `envoy` returns the admin address of the Envoy that runs beside us, if one does.

    Raises WrongUsage, and EnvironmentFailed if a flag names the port and it is taken.
    """
    if options.console is None:
        return
    read, read_objects = in_event_loop(status.as_json), in_event_loop(status.objects)

    async def objects() -> tuple[ObjectStatus, ...]:
        return await asyncio.wrap_future(read_objects())

    def limits() -> Mapping[str, Any] | None:
        text = _policy_server(services, "/limits")
        found: Mapping[str, Any] | None = json.loads(text) if text is not None else None
        return found

    source = Source(
        gateway=status.gateway,
        status=lambda: read().result(STATUS_TIMEOUT),
        objects=objects,
        states=lambda: status.fleet.states(partial(status.store.current, "")),
        limits=limits,
        policy_metrics=partial(_policy_server, services, "/metrics"),
        envoy=envoy,
        sends=options.proxy,
    )
    host, port = split(CONSOLE, options.console)
    if host.startswith("unix:"):
        raise WrongUsage(f"{CONSOLE}: a browser needs HOST:PORT, such as 127.0.0.1:19080")
    try:
        console = Console(host, port, source, options.console_token)
    except OSError as error:
        if options.console_asked:
            raise failed_to_listen(CONSOLE, options.console, error) from None
        log.warning("no console: %s is taken; --console ADDRESS chooses another", options.console)
        return
    console.start()
    stack.callback(console.stop)
    log.info("console %s", console.url)


def _policy_server(services: LocalServices, path: str) -> str | None:
    """Return a page of the admin address of the policy server that runs beside us, None if none answers. It blocks."""
    policy_server = services.own.get(SERVICE)
    if policy_server is None or not policy_server.begun:
        return None
    try:
        answer = ask((policy_server.admin, 0), "GET", path, timeout=joined_metrics.TIMEOUT)
    except (OSError, http.client.HTTPException):
        return None
    return answer.body.decode("utf-8", "replace") if answer.status == 200 else None
