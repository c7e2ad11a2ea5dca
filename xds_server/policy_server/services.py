"""The services of a policy server, each with the rules that it needs."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from filters.ext_authz.service import Authorization
from filters.rate_limit.service import RateLimits
from filters.rules import Service

SERVICES: tuple[Callable[[CollectorRegistry], Service], ...] = (
    lambda registry: Authorization(registry).service(),
    lambda registry: RateLimits(registry).service(),
)
"""A literal, as the policies are: each makes one service, whose metrics go into the registry."""
