"""Several policy servers as processes behind one address, with one admin address that shows them together."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from filters.rules import Service
from xds_server.admin import Page, Pages
from xds_server.errors import EnvironmentFailed
from xds_server.policy_server.run import Options, listen_admin, serve
from xds_server.policy_server.supervisor import Supervisor

_AFTER_DRAIN = 5.0
"""Seconds that a worker may outlast its drain."""

Make = Callable[[CollectorRegistry], Service]


def run(options: Options, count: int, services: tuple[Make, ...], folder: Path) -> int:
    """Serve with `count` workers, which share `folder` (PROMETHEUS_MULTIPROC_DIR), until a signal comes; the exit code."""
    with _listening(options.listen) as shared:
        children = [partial(_work, options, number, services, shared, folder) for number in range(count)]
        if options.admin is not None:
            children.append(partial(_show, options.admin, count, folder))
        gc.freeze()  # what is loaded stays shared between the processes
        supervisor = Supervisor(
            children,
            options.drain + _AFTER_DRAIN,
            ended=lambda number: _status_file(folder, number).unlink(missing_ok=True),
        )
        return supervisor.run()


def _work(
    options: Options,
    number: int,
    services: tuple[Make, ...],
    shared: socket.socket | None,
    folder: Path,
) -> int:
    name = options.node_id or f"policy-server@{socket.gethostname()}"
    mine = dataclasses.replace(
        options,
        admin=None,
        node_id=f"{name}/{number}",
        listening=shared,
        status_file=_status_file(folder, number),
        keeps=number == 0,
    )
    registry = CollectorRegistry()
    uvloop.run(serve(mine, tuple(make(registry) for make in services), registry))
    return 0


def _show(address: tuple[str, int], count: int, folder: Path) -> int:
    """Answer for all workers from what they write."""
    try:
        admin = listen_admin(address, _pages(count, folder))
    except OSError as error:
        raise EnvironmentFailed(f"{error}; choose another admin address") from None
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)
    admin.stop()
    return 0


def _pages(count: int, folder: Path) -> Pages:
    def ready() -> Page:
        serving = sum(bool(one["ready"]) for one in _statuses(count, folder))
        return Page.of({"ready": serving > 0, "workers": serving}, 200 if serving else 503)

    def metrics() -> Page:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
        return Page(200, generate_latest(registry), CONTENT_TYPE_LATEST)

    return {
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": ready,
        "/status": lambda: Page.of(together(_statuses(count, folder))),
        "/metrics": metrics,
    }


def together(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of all, as one policy server has it, with each worker's own below."""
    return {
        "control_plane_connected": bool(workers) and all(one["control_plane_connected"] for one in workers),
        "restored": any(one["restored"] for one in workers),
        "under_way": sum(one["under_way"] for one in workers),
        "rules": workers[0]["rules"] if workers else {},
        "refused": {name: why for one in workers for name, why in one["refused"].items()},
        "workers": workers,
    }


def _statuses(count: int, folder: Path) -> list[dict[str, Any]]:
    found = []
    for number in range(count):
        with contextlib.suppress(FileNotFoundError):
            found.append(json.loads(_status_file(folder, number).read_bytes()))
    return found


def _status_file(folder: Path, number: int) -> Path:
    return folder / f"status-{number}.json"


@contextlib.contextmanager
def _listening(address: str) -> Iterator[socket.socket | None]:
    """The socket that all workers accept from, where the kernel does not share the address (a port is shared).

    Nobody can connect before the first worker with its rules listens.
    """
    if not address.startswith("unix:"):
        yield None
        return
    path = address.removeprefix("unix:").removeprefix("//")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == 0:
            raise EnvironmentFailed(f"somebody listens on {address}; choose another address")
    with socket.socket(socket.AF_UNIX) as shared:
        Path(path).unlink(missing_ok=True)
        try:
            shared.bind(path)
        except OSError as error:
            raise EnvironmentFailed(f"cannot listen on {address}: {error}; choose another address") from None
        shared.setblocking(False)
        yield shared
        Path(path).unlink(missing_ok=True)
