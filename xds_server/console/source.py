"""What the console reads from the running control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.control_plane.control_loop import GatewayState
from xds_server.control_plane.status import ObjectStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the console reads. `status` and `limits` return what the admin addresses show, and `policy_metrics` the
    metrics of the policy server as text; None if it does not answer.

    `objects` reads the status of the objects; it runs in the event loop of the control plane. `states` are those of
    the connected Envoys with respect to the newest gateway. `sends` is true if the gateway's ports are on this machine.
    """

    gateway: GatewayState
    status: Callable[[], Mapping[str, Any]]
    objects: Callable[[], Awaitable[tuple[ObjectStatus, ...]]]
    states: Callable[[], list[Any]]
    limits: Callable[[], Mapping[str, Any] | None]
    policy_metrics: Callable[[], str | None]
    envoy: Callable[[], tuple[str, int] | None]
    sends: bool
