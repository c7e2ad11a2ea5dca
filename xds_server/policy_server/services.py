"""The services of a policy server, each with the rules that it needs."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from filters.ext_authz.service import Authorization
from filters.rate_limit.limiter import Memory
from filters.rate_limit.redis_store import RedisStore, connect
from filters.rate_limit.service import RateLimits, Store
from filters.rules import Service


def store(counters: str, registry: CollectorRegistry) -> Store:
    """Where counters are: ``memory``, or the URL of a Redis. Raises ValueError for what is neither."""
    if counters == "memory":
        return Memory()
    return RedisStore(connect(counters), registry)


def services(counters: str) -> tuple[Callable[[CollectorRegistry], Service], ...]:
    """Each makes one service, whose metrics go into the registry; `counters` is where limits are counted."""
    return (
        lambda registry: Authorization(registry).service(),
        lambda registry: RateLimits(registry, store(counters, registry)).service(),
    )
