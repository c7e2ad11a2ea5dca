"""The services of a policy server, each with the rules that it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry

from filters.ext_authz.service import Authorization
from filters.rate_limit import reading
from filters.rate_limit.imported import Domain
from filters.rate_limit.limiter import Memory
from filters.rate_limit.redis_store import RedisStore, connect
from filters.rate_limit.service import RateLimits, Store
from filters.rules import Service
from xds_server.policy_server.descriptors import Following


def store(counters: str, registry: CollectorRegistry) -> Store:
    """Where counters are: ``memory``, or the URL of a Redis. Raises ValueError for what is neither."""
    if counters == "memory":
        return Memory()
    return RedisStore(connect(counters), registry)


def services(
    counters: str, descriptors: Path | None = None
) -> tuple[Callable[[CollectorRegistry], Service], ...]:
    """Each makes one service, whose metrics go into the registry; `counters` is where limits are counted.

    `descriptors` is a file or folder with the limits of Envoys that other people configure.
    """

    @cache
    def limits(registry: CollectorRegistry) -> RateLimits:
        return RateLimits(registry, store(counters, registry))

    return (
        lambda registry: _authorization(limits(registry), registry),
        lambda registry: _limits(limits(registry), descriptors),
    )


def _authorization(limits: RateLimits, registry: CollectorRegistry) -> Service:
    return Authorization(registry, usage=reading.reader(limits), counting=limits).service()


def _limits(limits: RateLimits, descriptors: Path | None) -> Service:
    service = limits.service()
    if descriptors is None:
        return service

    def use(domains: Mapping[str, Domain]) -> None:
        limits.domains = domains

    return dataclasses.replace(service, close=Following(descriptors, use).end)
