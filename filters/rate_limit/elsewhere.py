"""Calls of Envoys that other people configure: what their descriptors count, and the answer for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from envoy.type.v3 import ratelimit_unit_pb2

from filters.language.scalars import PERIODS, Period
from filters.rate_limit.algorithms import FixedWindow
from filters.rate_limit.imported import MOST, Domain, Imported
from filters.rate_limit.limiter import Decision, Figure, Hit

_RESPONSE = rls_pb2.RateLimitResponse
_UNITS: Mapping[int, Period] = {
    getattr(ratelimit_unit_pb2.RateLimitUnit, one.upper()): one for one in PERIODS
}  # of the numbers that an Envoy may send, those of which there are windows


class Asked(NamedTuple):
    """What each descriptor of a call counts, in their order: a hit, None for nothing, True for no limit at all."""

    each: tuple[Hit | bool | None, ...]

    @property
    def hits(self) -> list[Hit]:
        """What is to be decided; descriptors that say the same count once."""
        return list({one.key: one for one in self.each if isinstance(one, Hit)}.values())


def asked(domain: Domain, request: rls_pb2.RateLimitRequest) -> Asked:
    """What a call counts. A limit whose name another one replaces counts nothing."""
    found = [_found(domain, one) for one in request.descriptors]
    replaced = {name for one in found if one is not None for name in one[0].replaces}
    costs = [
        one.hits_addend.value if one.HasField("hits_addend") else max(1, request.hits_addend)
        for one in request.descriptors
    ]
    return Asked(
        tuple(_hit(domain, one, cost, replaced) for one, cost in zip(found, costs, strict=True)),
    )


def _found(domain: Domain, descriptor: ratelimit_pb2.RateLimitDescriptor) -> tuple[Imported, str] | None:
    entries = [(one.key, one.value) for one in descriptor.entries]
    if not descriptor.HasField("limit"):
        return domain.find(entries)
    period = _UNITS.get(descriptor.limit.unit)
    if period is None:
        return None
    return _override(period, descriptor.limit.requests_per_unit), domain.key(entries)


@lru_cache(1024)
def _override(period: Period, amount: int) -> Imported:
    """A limit that Envoy sends itself with a descriptor."""
    return Imported(limit=FixedWindow(name="override", amount=amount, per=period))


def _hit(
    domain: Domain, found: tuple[Imported, str] | None, cost: int, replaced: set[str]
) -> Hit | bool | None:
    if found is None or (found[0].name and found[0].name in replaced):
        return None
    imported, entries = found
    if imported.limit is None:
        return True
    return Hit(imported.limit, f"{domain.base}|{imported.limit.per}|{entries}", cost)


def limit_of(domains: Iterable[Domain], stored: str) -> FixedWindow | None:
    """The limit that counts under a key, None where no file has it (any more)."""
    base, per, *entries = [*stored.split("|"), ""]
    pairs = [one.partition("=") for one in entries if one]
    for domain in domains:
        if domain.base == base:
            found = domain.find((unquote(key), unquote(value)) for key, _, value in pairs)
            limit = found[0].limit if found is not None else None
            return limit if limit is not None and limit.per == per else None
    return None


def answer(asked: Asked, decision: Decision) -> rls_pb2.RateLimitResponse:
    """The statuses, of whose figures Envoy makes its headers."""
    response = _RESPONSE(overall_code=_RESPONSE.OK if decision.admitted else _RESPONSE.OVER_LIMIT)
    figures = dict(_by_key(asked.hits, decision.figures))
    for one in asked.each:
        status = response.statuses.add(code=_RESPONSE.OK)
        figure = figures.get(one.key) if isinstance(one, Hit) else None
        if one is True:
            status.limit_remaining = MOST
        elif figure is not None:
            _tell(status, figure, decision.now)
    return response


def _by_key(hits: Sequence[Hit], figures: Sequence[Figure]) -> Iterator[tuple[str, Figure]]:
    """Figures may be fewer than the hits and in another order; each says of which limit it is."""
    left = list(hits)
    for figure in figures:
        hit = next((one for one in left if one.limit is figure.limit), None)
        if hit is not None:
            left.remove(hit)
            yield hit.key, figure


def _tell(status: rls_pb2.RateLimitResponse.DescriptorStatus, figure: Figure, now: int) -> None:
    limit = figure.limit
    if figure.short and not limit.shadow:
        status.code = _RESPONSE.OVER_LIMIT
    status.current_limit.name = limit.name
    status.current_limit.requests_per_unit = limit.amount
    status.current_limit.unit = getattr(_RESPONSE.RateLimit, limit.per.upper())
    status.limit_remaining = min(MOST, figure.remaining)
    status.duration_until_reset.FromMicroseconds(max(0, figure.reset - now))
