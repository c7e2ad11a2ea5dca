"""Several policy servers as processes behind one address, with one admin address for all."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import http.client
import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.server.service import microseconds
from filters.rate_limit.stores.owner_process import Owner
from xds_server.admin import UNIX, Incoming, Page, Pages, ask
from xds_server.policy_server.lifecycle import LISTEN, Make, PolicyServerOptions, listen_admin, serve
from xds_server.policy_server.listening import listening, stop
from xds_server.processes.forked import ForkSupervisor
from xds_server.processes.garbage import Pauses, settle
from xds_server.unary_server.accepting import Shared, counts

_AFTER_DRAIN = 5.0
"""Seconds that a worker may run after its drain."""
_PATIENCE = 2.0
"""Seconds in which a worker must return its state."""
_PURGE = "/cache/purge"
"""The action that each worker carries out, because each has a cache of its own."""
_PAGES, _ACTIONS = ("/limits",), ("/limits/reset",)
"""Pages and actions that any worker can serve, because all have the same rules and counters."""


def run(
    options: PolicyServerOptions, count: int, services: tuple[Make, ...], folder: Path, owner: Path | None
) -> int:
    """Serve with `count` workers until a signal arrives. Returns the exit code.

    The workers share `folder` (PROMETHEUS_MULTIPROC_DIR), which other users must not be able to open. If counters are
    in memory, one more process keeps them and listens at `owner`.
    """
    # grpcio does not accept a bound socket: there the kernel shares the port
    mine = listening(LISTEN, options.listen) if options.grpc == "native" else contextlib.nullcontext(())
    with mine as shared, _bound(owner) as counters:
        connections = counts(count)
        children: dict[str, Callable[[], int]] = {
            f"xds-worker-{number}": partial(
                _work,
                options,
                number,
                services,
                [Shared(socket=bound_socket, counts=connections, number=number) for bound_socket in shared],
                folder,
            )
            for number in range(count)
        }
        for bound_socket in counters:
            children["xds-counters"] = partial(_own, bound_socket, shared)
        if options.admin is not None:
            children["xds-admin"] = partial(_show, options.admin, count, folder, shared)
        gc.freeze()  # loaded objects stay shared between the processes
        grace = options.drain + _AFTER_DRAIN
        return ForkSupervisor(children, grace, ending=partial(stop, shared)).run()


def _work(
    options: PolicyServerOptions,
    number: int,
    services: tuple[Make, ...],
    shared: Sequence[Shared],
    folder: Path,
) -> int:
    name = options.node_id or f"{options.role.name}@{socket.gethostname()}"
    mine = dataclasses.replace(
        options,
        admin=_admin(folder, number),
        node_id=f"{name}/{number}",
        listening=shared,
        keeps=number == 0,
        # the other workers have the same sockets, so one warning is enough
        own_counters=options.own_counters and number == 0 and bool(shared),
    )
    uvloop.run(serve(mine, services, CollectorRegistry()))
    return 0


def _own(counters: socket.socket, shared: Sequence[socket.socket]) -> int:
    """Keep the counters of all workers until they have drained."""
    _leave(shared)
    uvloop.run(_owning(counters))
    return 0


async def _owning(counters: socket.socket) -> None:
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    settle()
    pauses = Pauses()
    pauses.watch()
    owner = Owner(Memory(), microseconds)
    server = await owner.start(counters)
    await end.wait()
    await owner.unused.wait()
    server.close()
    pauses.end()


@contextlib.contextmanager
def _bound(path: Path | None) -> Iterator[Sequence[socket.socket]]:
    """Yield the owner's socket, which outlives an owner process.

    Workers that connect in the meantime wait for the next one.
    """
    if path is None:
        yield ()
        return
    with listening("the counters at", f"{UNIX}{path}") as sockets:
        for counters in sockets:
            counters.listen()
            counters.setblocking(False)
        yield sockets


def _leave(shared: Sequence[socket.socket]) -> None:
    """Close this process's copies, so that the sockets close with the last worker, even if the supervisor has died."""
    for bound in shared:
        bound.close()


def _show(address: str, count: int, folder: Path, shared: Sequence[socket.socket]) -> int:
    """Serve the admin address for all workers, by requests to them."""
    _leave(shared)
    workers = [(_admin(folder, number), 0) for number in range(count)]

    def sent(path: str) -> Callable[[Incoming], Page]:
        return lambda incoming: _ask_any(workers, "POST", path, incoming.text())

    actions = {path: sent(path) for path in _ACTIONS}
    actions[_PURGE] = lambda incoming: _purge_all(workers, incoming.text())
    admin = listen_admin(address, _pages(workers, folder), actions)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)
    admin.stop()
    return 0


def _pages(workers: Sequence[tuple[str, int]], folder: Path) -> Pages:
    def ready() -> Page:
        serving = sum(bool(status["ready"]) for status in _statuses(workers))
        return Page.of({"ready": serving > 0, "workers": serving}, 200 if serving else 503)

    def metrics() -> Page:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
        return Page(200, generate_latest(registry), CONTENT_TYPE_LATEST)

    return {
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": ready,
        "/status": lambda: Page.of(together(_statuses(workers))),
        "/metrics": metrics,
        **{path: partial(_ask_any, workers, "GET", path) for path in _PAGES},
    }


def together(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of all workers in the form of one policy server's, with each worker's own state."""
    return {
        "control_plane_connected": bool(workers)
        and all(status["control_plane_connected"] for status in workers),
        "restored": any(status["restored"] for status in workers),
        "under_way": sum(status["under_way"] for status in workers),
        "rules": workers[0]["rules"] if workers else {},
        "refused": {name: why for status in workers for name, why in status["refused"].items()},
        "workers": workers,
    }


def _statuses(workers: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return the states of the workers that respond."""
    statuses = []
    for worker in workers:
        with contextlib.suppress(OSError, http.client.HTTPException):
            statuses.append(json.loads(ask(worker, "GET", "/status", timeout=_PATIENCE).body))
    return statuses


def _ask_any(workers: Sequence[tuple[str, int]], method: str, path: str, body: str | None = None) -> Page:
    """Return the response of the first worker that gives one."""
    for worker in workers:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(worker, method, path, body)
    return Page.of({"error": "no worker answers"}, 503)


def _purge_all(workers: Sequence[tuple[str, int]], body: str) -> Page:
    """Purge in all workers. Return the sum, or the first response that is no success."""
    purged = 0
    for worker in workers:
        with contextlib.suppress(
            OSError, http.client.HTTPException
        ):  # a worker that starts anew has an empty cache
            page = ask(worker, "POST", _PURGE, body)
            if page.status != http.client.OK:
                return page
            purged += json.loads(page.body)["purged"]
    return Page.of({"purged": purged})


def _admin(folder: Path, number: int) -> str:
    return f"{UNIX}{folder}/admin-{number}.sock"
