"""Calls of Envoys with another configuration: the counts of their descriptors, and the response to each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, cast
from urllib.parse import unquote

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2

from filters.rate_limit.client_headers import seconds
from filters.rate_limit.descriptor_files.reader import MOST, Domain, Imported
from filters.rate_limit.engine.algorithms import FixedWindow
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision
from filters.rate_limit.engine.windows import Window

_RESPONSE = rls_pb2.RateLimitResponse
_UNITS: Mapping[int, Window] = {
    number: cast("Window", name.lower()) for name, number in _RESPONSE.RateLimit.Unit.items() if number
}
"""The windows of the units that an Envoy may send."""


class Counting(NamedTuple):
    """The count of one descriptor. `reported` is true if Envoy sends its cost. `quota` is that of `Imported`."""

    hit: Hit
    reported: bool
    quota: bool


class CallCounts(NamedTuple):
    """The count of each descriptor of a call, in their order: None for no count, True for an unlimited descriptor."""

    each: tuple[Counting | bool | None, ...]

    @property
    def hits(self) -> list[Hit]:
        """The hits to decide. Descriptors of the same key count once, with the highest cost of them."""
        found: dict[str, Hit] = {}
        for one in self.counting:
            known = found.get(one.hit.key)
            if known is None or known.cost < one.hit.cost:
                found[one.hit.key] = one.hit
        return list(found.values())

    def spent(self, decision: LimitDecision) -> list[Hit]:
        """The hits that the decision did not count but that count: an amount that Envoy sends may be spent already."""
        keys = {one.hit.key for one in self.counting if one.reported}
        if decision.admitted:  # a hit that is short in shadow was not counted
            keys &= {key for key, figure in _by_key(self.hits, decision.figures) if figure.short}
        return [hit for hit in self.hits if hit.cost and hit.key in keys]

    @property
    def counting(self) -> list[Counting]:
        """The descriptors that count."""
        return [one for one in self.each if isinstance(one, Counting)]


def call_counts(domain: Domain, request: rls_pb2.RateLimitRequest) -> CallCounts:
    """The counts of a call. A limit whose name another one replaces counts nothing."""
    found = [_found(domain, one) for one in request.descriptors]
    replaced = {name for one in found if one is not None for name in one[0].replaces}
    return CallCounts(
        tuple(
            _counting(domain, one, *_cost(request, descriptor), replaced)
            for one, descriptor in zip(found, request.descriptors, strict=True)
        ),
    )


def _cost(
    request: rls_pb2.RateLimitRequest, descriptor: ratelimit_pb2.RateLimitDescriptor
) -> tuple[int, bool]:
    """The cost of a descriptor, and True if Envoy sent it. A cost above the largest limit is reduced to it."""
    if descriptor.HasField("hits_addend"):
        return min(MOST, descriptor.hits_addend.value), True
    return max(1, request.hits_addend), request.hits_addend > 0


def _found(domain: Domain, descriptor: ratelimit_pb2.RateLimitDescriptor) -> tuple[Imported, str] | None:
    entries = [(entry.key, entry.value) for entry in descriptor.entries]
    if not descriptor.HasField("limit"):
        return domain.find(entries)
    period = _UNITS.get(descriptor.limit.unit)
    if period is None:
        return None
    return _override(period, descriptor.limit.requests_per_unit), domain.key(entries)


@lru_cache(1024)
def _override(period: Window, amount: int) -> Imported:
    """A limit that Envoy sends with a descriptor."""
    return Imported(limit=FixedWindow(name="", amount=amount, per=period, allow_on_error=None, least=0))


def _counting(
    domain: Domain, found: tuple[Imported, str] | None, cost: int, reported: bool, replaced: set[str]
) -> Counting | bool | None:
    if found is None or (found[0].name and found[0].name in replaced):
        return None
    imported, entries = found
    if imported.limit is None:
        return True
    hit = Hit(imported.limit, f"{domain.base}|{imported.limit.per}|{entries}", cost)
    return Counting(hit, reported, imported.quota)


def limit_of(domains: Iterable[Domain], stored: str) -> FixedWindow | None:
    """The limit that counts under the key `stored`, or None if no file has it (any more)."""
    base, per, *entries = [*stored.split("|"), ""]
    pairs = [entry.partition("=") for entry in entries if entry]
    for domain in domains:
        if domain.base == base:
            found = domain.find((unquote(key), unquote(value)) for key, _, value in pairs)
            limit = found[0].limit if found is not None else None
            return limit if limit is not None and limit.per == per else None
    return None


def answer(asked: CallCounts, decision: LimitDecision) -> rls_pb2.RateLimitResponse:
    """The response with a status for each descriptor. Envoy builds its headers from the figures."""
    response = _RESPONSE()
    figures = dict(_by_key(asked.hits, decision.figures))
    spent = {one.key for one in asked.spent(decision)}
    over = list[bool]()
    for one in asked.each:
        status = response.statuses.add(code=_RESPONSE.OK)
        if one is True:
            status.limit_remaining = MOST
        elif isinstance(one, Counting) and one.hit.key in figures:
            figure = figures[one.hit.key]
            if one.hit.key in spent:
                figure = figure._replace(remaining=max(0, figure.remaining - one.hit.cost))
            _fill(status, figure, decision.now, quota=one.quota)
            if one.quota:
                over.append(figure.short)
    rejected = not decision.admitted or (bool(over) and all(over))
    response.overall_code = _RESPONSE.OVER_LIMIT if rejected else _RESPONSE.OK
    return response


def _by_key(hits: Sequence[Hit], figures: Sequence[Figure]) -> Iterator[tuple[str, Figure]]:
    """Figures by key. They may be fewer than the hits and in another order, but each names its limit."""
    left = list(hits)
    for figure in figures:
        hit = next((one for one in left if one.limit is figure.limit), None)
        if hit is not None:
            left.remove(hit)
            yield hit.key, figure


def _fill(
    status: rls_pb2.RateLimitResponse.DescriptorStatus, figure: Figure, now: int, *, quota: bool
) -> None:
    """Write the figures into a status, in whole seconds. They are rounded up, because Envoy has no smaller unit."""
    limit = figure.limit
    if figure.short and (quota or not limit.shadow):
        status.code = _RESPONSE.OVER_LIMIT
    status.current_limit.name = limit.name
    status.current_limit.requests_per_unit = limit.amount
    status.current_limit.unit = getattr(_RESPONSE.RateLimit, limit.per.upper())
    status.limit_remaining = 0 if figure.short else min(MOST, figure.remaining)
    status.duration_until_reset.seconds = max(1, seconds(figure.reset - now))
