"""The services of a policy server, each with the rules that it needs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from filters.cache.service import CacheService
from filters.check.service import Authorization
from filters.decompression import service as decoding
from filters.ext_proc import rule as processors
from filters.ext_proc.names import PROCESSOR
from filters.mock import processor as mocks
from filters.mock.names import MOCK
from filters.processing.processor import Rule
from filters.processing.service import Processing
from filters.rate_limit.descriptor_files.reader import Domain
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.store import CounterStore
from filters.rate_limit.server import usage_report
from filters.rate_limit.server.leases import Leases
from filters.rate_limit.server.service import RateLimits, microseconds
from filters.rate_limit.stores.owner_client import OwnerStore
from filters.rate_limit.stores.redis import RedisStore
from filters.rate_limit.stores.redis_client import connect
from filters.rules import RuleType, Service
from filters.validation.names import VALIDATION
from filters.validation.processor import load
from filters.validation.reporting import Reporter
from filters.waf import crs
from filters.waf import processor as firewall
from filters.waf.engines import Engines
from filters.waf.names import WAF
from filters.waf.reporting import Reporter as FirewallReporter
from xds_server.policy_server.descriptors import Following


def store(
    counters: str, owner: Path | None, registry: CollectorRegistry, timeout: float | None = None
) -> CounterStore:
    """Return the store of counters: ``memory``, possibly in the process at `owner`, or the URL of a Redis.

    `timeout` is the time in seconds that another process may be silent; None is the default of the store.
    """
    deadline = {} if timeout is None else {"deadline": timeout}
    if counters != "memory":
        return RedisStore(connect(counters), registry, **deadline)
    return Memory() if owner is None else OwnerStore(owner, registry, **deadline)


def services(
    counters: str,
    descriptors: Path | None = None,
    owner: Path | None = None,
    *,
    counters_timeout: float | None = None,
    responses: str = "memory",
    subscribers: bool = False,
    clock: Callable[[], int] = microseconds,
) -> tuple[Callable[[CollectorRegistry], Service], ...]:
    """Return functions that make one service each, whose metrics are in the registry.

    `counters`, `owner` and `counters_timeout` are those of `store`. `responses` is ``memory``, or the URL of a Redis that policy
    servers share for responses. `descriptors` is a file or folder with the limits of Envoys that
    others configure. With `subscribers`, keys of a marketplace are looked up. `clock` gives the moment of limits in microseconds since 1970; a Redis has its own.
    """

    @cache
    def limits(registry: CollectorRegistry) -> RateLimits:
        return RateLimits(registry, store(counters, owner, registry, counters_timeout), clock)

    return (
        lambda registry: _authorization(limits(registry), registry, subscribers),
        lambda registry: _limits(limits(registry), registry, descriptors),
        decoding.service,
        lambda registry: CacheService(registry, redis=_client(responses)).service(),
        _processing,
    )


def _client(url: str) -> Any:
    return None if url == "memory" else connect(url)


def _engines(loop: asyncio.AbstractEventLoop) -> Engines:
    crs.require_engine()
    return Engines(crs.folder(), loop)


def _processing(registry: CollectorRegistry) -> Service:
    validation = partial(load, report=Reporter(registry))
    engines = cache(partial(_engines, asyncio.get_running_loop()))
    waf = partial(firewall.load, engines=engines, reporter=FirewallReporter(registry))
    rules: tuple[tuple[RuleType, Callable[[Any], Rule]], ...] = (
        (PROCESSOR, processors.load),
        (VALIDATION, validation),
        (MOCK, mocks.load),
        (WAF, waf),
    )

    async def close() -> None:
        if engines.cache_info().currsize:
            await engines().close()

    return dataclasses.replace(Processing(registry, rules).service(), close=close)


def _authorization(limits: RateLimits, registry: CollectorRegistry, subscribers: bool) -> Service:
    usage = usage_report.reader(limits)
    return Authorization(registry, usage=usage, counting=limits, subscribers=subscribers).service()


def _limits(limits: RateLimits, registry: CollectorRegistry, descriptors: Path | None) -> Service:
    service = limits.service()
    service = dataclasses.replace(service, methods=(*service.methods, Leases(limits, registry).method()))
    if descriptors is None:
        return service

    def use(domains: Mapping[str, Domain]) -> None:
        limits.domains = domains

    following = Following(descriptors, use)

    def close() -> Awaitable[None] | None:
        following.end()
        return service.close()

    return dataclasses.replace(service, close=close)
