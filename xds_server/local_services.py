"""The policy server, the usage server and the composer that `xds run` starts when a gateway first needs them."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from filters.policy_server import SERVICE
from xds_server.processes.cpus import cores
from xds_server.processes.process import Process
from xds_server.run_options import RunOptions
from xds_server.translate.clusters import INTERNAL_SERVICES
from xds_server.translate.composer_entry import DEFAULT_CALLS
from xds_server.translate.composer_entry import SERVICE as COMPOSER
from xds_server.translate.usage_entry import SERVICE as USAGE

LISTENING = 5.0
"""Seconds in which a started policy server must listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServices:
    """The processes on this machine. `xds` is the address at which they reach the control plane.

    `addresses` are those at which Envoys reach our own services, by name. `own` are the services that this process starts
    when they are needed, by name.
    """

    xds: str
    addresses: Mapping[str, str]
    own: Mapping[str, OwnService]
    another_policy_server: Callable[[str], OwnService] | None
    """Makes one more policy server, by the id of its node, which the caller ends. None if another operator runs them."""
    composer_calls: str = DEFAULT_CALLS
    """The address at which Envoys take calls of the composer."""

    def admin(self, name: str) -> str | None:
        """Return the admin address of a service that this process starts, or None if another operator runs it."""
        return self.own[name].admin if name in self.own else None


@dataclass(slots=True, kw_only=True)
class OwnService:
    """A process that starts once, when a gateway first needs it."""

    process: Process
    socket: str
    """The path of the socket at which it listens."""
    admin: str
    begun: bool = False

    @property
    def address(self) -> str:
        """The address at which Envoys reach it."""
        return f"unix:{self.socket}"

    async def ensure(self) -> None:
        """Start the process, and wait until it listens."""
        if not self.begun:
            self.begun = True
            await self.process.start()
            await _until_it_listens(self.socket)


async def local_services(options: RunOptions, stack: AsyncExitStack) -> LocalServices:
    """Prepare our own services. Child processes connect over a Unix socket, where secrets are allowed without TLS."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-run-"))
    xds = f"unix:{folder}/xds.sock"
    calls = options.composer_calls or (
        f"unix:{folder}/composer-calls.sock" if options.proxy and options.composer is None else DEFAULT_CALLS
    )
    addresses, own = dict(INTERNAL_SERVICES), dict[str, OwnService]()
    numbers = itertools.count(1)

    def service(name: str, make: Callable[[str, str], Process]) -> OwnService:
        socket, admin = f"{folder}/{name}.sock", f"unix:{folder}/{name}-admin.sock"
        return OwnService(process=make(f"unix:{socket}", admin), socket=socket, admin=admin)

    def another_policy_server(node_id: str) -> OwnService:
        name = f"{SERVICE}-{next(numbers)}"
        return service(name, partial(_policy_server, options, xds, node_id=node_id))

    for name, address, make in (
        (SERVICE, options.policy_server, partial(_policy_server, options, xds)),
        (USAGE, options.usage_server, partial(_usage_server, options)),
        (COMPOSER, options.composer, partial(_composer, options, xds, calls)),
    ):
        if address is not None:
            addresses[name] = address
        elif options.proxy:
            own[name] = service(name, make)
            stack.push_async_callback(own[name].process.stop)
            addresses[name] = own[name].address
    return LocalServices(
        xds=xds,
        addresses=addresses,
        own=own,
        composer_calls=calls,
        another_policy_server=another_policy_server if SERVICE in own else None,
    )


def _policy_server(
    options: RunOptions, xds: str, address: str, admin: str, node_id: str | None = None
) -> Process:
    command = (sys.executable, "-m", "xds_server", "policy-server", "--xds", xds, "--listen", address)
    node = () if node_id is None else ("--node-id", node_id)
    # Envoy gets the other half: it works longer on a request than the policy server
    workers = max(1, cores() // 2) if options.limit_clock is None else 1
    clock = () if options.limit_clock is None else ("--limit-clock", str(options.limit_clock))
    market = () if options.marketplace is None else ("--marketplace",)
    drain = ("--admin", admin, "--drain", str(options.drain), "--log-format", options.log_format)
    return Process(
        "the policy server",
        (*command, *node, "--workers", str(workers), *clock, *market, *drain),
        patience=options.drain + 5,
        log=options.services_log,
    )


def _usage_server(options: RunOptions, address: str, admin: str) -> Process:
    command = (sys.executable, "-m", "xds_server", "usage-server", "--listen", address)
    files = ("--store", options.usage_store, "--spool", str(options.usage_spool))
    drain = ("--admin", admin, "--drain", str(options.drain), "--log-format", options.log_format)
    return Process(
        "the usage server",
        (*command, *files, *drain),
        patience=2 * options.drain + 5,
        log=options.services_log,
    )


def _composer(options: RunOptions, xds: str, calls: str, address: str, admin: str) -> Process:
    command = (
        sys.executable,
        "-m",
        "xds_server",
        "composer",
        "--xds",
        xds,
        "--listen",
        address,
        "--calls",
        calls,
    )
    # Envoy gets the other half: it sends each call too
    workers = ("--workers", str(max(1, cores() // 2)))
    drain = ("--admin", admin, "--drain", str(options.drain), "--log-format", options.log_format)
    return Process(
        "the composer",
        (*command, *workers, *drain),
        patience=options.drain + 5,
        log=options.services_log,
    )


async def _until_it_listens(path: str) -> None:
    """Wait until a process accepts connections at a Unix socket, at most LISTENING seconds.

    A policy server acknowledges its rules a moment before it listens, and Envoys must not call it in between.
    """
    end = asyncio.get_running_loop().time() + LISTENING
    while asyncio.get_running_loop().time() < end:
        try:
            _, writer = await asyncio.open_unix_connection(path)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
