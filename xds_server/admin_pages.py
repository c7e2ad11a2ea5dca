"""The pages of the admin address of `xds run`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from filters.policy_server import SERVICE
from xds_server import joined_metrics
from xds_server.admin import Actions, Incoming, Page, Pages, ask
from xds_server.control_plane.control_loop import GatewayState
from xds_server.control_plane.progressive_rollout import ProgressiveRollout
from xds_server.control_plane.rollout_steps import NoRollout
from xds_server.control_plane.status import StatusReader
from xds_server.local_services import LocalServices
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.serving import metrics
from xds_server.translate.composer_entry import SERVICE as COMPOSER
from xds_server.translate.readable_gateway import ReadableGateway
from xds_server.translate.usage_entry import SERVICE as USAGE

T = TypeVar("T")
_PROCESSES = {SERVICE: "policy-server", USAGE: "usage-server", COMPOSER: "composer"}
"""The processes of our own services, as `xds_process_up` names them."""
STATUS_TIMEOUT = 30.0
"""Seconds in which the event loop has to read the status of the objects."""


def in_event_loop(read: Callable[[], T]) -> Callable[[], Future[T]]:
    """Return a function that reads something from another thread, in the event loop that runs now."""
    loop = asyncio.get_running_loop()

    async def reading() -> T:
        return read()

    return lambda: asyncio.run_coroutine_threadsafe(reading(), loop)


def metric_sources(
    services: LocalServices, envoy_of: Callable[[], EnvoySupervisor | None]
) -> Mapping[str, joined_metrics.Source]:
    """Return where the other processes of this machine show their metrics: Envoy, and the services that were needed."""

    def envoy() -> tuple[tuple[str, int], str] | None:
        supervisor = envoy_of()
        address = supervisor.admin_address if supervisor is not None else None
        return None if address is None else (address, "/stats/prometheus?usedonly")

    begun = {name: own.admin for name, own in services.own.items() if own.begun}
    return {
        "envoy": envoy,
        **{_PROCESSES[name]: partial(_metrics_at, admin) for name, admin in begun.items()},
    }


def _metrics_at(admin: str) -> tuple[tuple[str, int], str]:
    return (admin, 0), "/metrics"


def pages(
    status: StatusReader,
    counted: metrics.Metrics,
    sources: Callable[[], Mapping[str, joined_metrics.Source]],
    usage: str | None,
) -> Pages:
    """Return the pages. `sources` are the metrics of other processes, `usage` is the admin address of the usage server."""
    read, read_objects = in_event_loop(status.as_json), in_event_loop(status.objects)

    def objects() -> Page:
        return Page.of(status.objects_as_json(read_objects().result(STATUS_TIMEOUT)))

    return {
        "/metrics": lambda: Page(200, counted.text(), metrics.CONTENT_TYPE),
        "/metrics/all": lambda: Page(
            200, joined_metrics.page(counted.text(), sources()), metrics.CONTENT_TYPE
        ),
        "/healthz": lambda: Page.of({"status": "ok"}),
        "/ready": lambda: _ready(status.gateway, served=status.store.current() is not None),
        "/status": lambda: Page.of(read().result(STATUS_TIMEOUT)),
        "/status/objects": objects,
        "/gateway": lambda: _gateway(status.gateway),
        "/usage/status": lambda: _usage_status(usage),
    }


def _gateway(gateway: GatewayState) -> Page:
    """Return the gateway that is served as plain values without secrets, for `xds diff --server`."""
    if gateway.compiled is None:
        return Page.of({"error": "no gateway has been read since the start"}, 503)
    compiled = gateway.compiled
    return Page.of(ReadableGateway.of(compiled.gateway, compiled.snapshot).as_json())


def rollout_pages(rollout: ProgressiveRollout) -> Pages:
    """Return the page of the rollout."""
    read = in_event_loop(rollout.as_json)
    return {"/rollout": lambda: Page.of(read().result(STATUS_TIMEOUT))}


def rollout_actions(rollout: ProgressiveRollout) -> Actions:
    """Return the actions of `xds rollout`, which run in the event loop that runs now."""
    loop, read = asyncio.get_running_loop(), in_event_loop(rollout.as_json)

    def action(begin: Callable[[], Coroutine[None, None, None]]) -> Callable[[Incoming], Page]:
        def act(_: Incoming) -> Page:
            try:
                asyncio.run_coroutine_threadsafe(begin(), loop).result(STATUS_TIMEOUT)
            except NoRollout as reason:
                return Page.of({"error": str(reason)}, 409)
            return Page.of(read().result(STATUS_TIMEOUT))

        return act

    return {
        "/rollout/promote": action(rollout.promote),
        "/rollout/abort": action(rollout.abort),
        "/rollout/pause": action(partial(rollout.pause, True)),
        "/rollout/resume": action(partial(rollout.pause, False)),
    }


def _usage_status(address: str | None) -> Page:
    """Return the status of the usage server that this process starts. Raises OSError if it does not run."""
    if address is None:
        return Page.of({"error": "another operator runs the usage server"}, 404)
    return ask((address, 0), "GET", "/status", timeout=joined_metrics.TIMEOUT)


def _ready(gateway: GatewayState, *, served: bool) -> Page:
    """Return 200 if a gateway is served, or 503 with the reason."""
    if gateway.something and served:
        return Page.of({"ready": True})
    if gateway.something:
        reason = "the gateway has been read and is not served yet; xds rollout says what other control planes serve"
        return Page.of({"ready": False, "because": [reason]}, 503)
    errors = [str(problem) for problem in gateway.errors]
    reasons = [*([gateway.unreadable] if gateway.unreadable else []), *errors]
    return Page.of({"ready": False, "because": reasons or ["the folder has not been read yet"]}, 503)
