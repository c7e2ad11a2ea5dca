"""Limits as the gateway declares them, as rules on the wire, and as a policy server loads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from filters.language.scalars import PERIODS, Period
from filters.model.identity import Plan
from filters.model.limits import GRAPHQL, ConcurrencyLimit, Quota
from filters.model.limits import Limit as RateLimit
from filters.rate_limit.engine.algorithms import Concurrency, FixedWindow, Limit, SlidingWindow, TokenBucket
from filters.rules import Refused, RuleType
from protos import limits_pb2 as pb

DeclaredLimit = RateLimit | Quota | ConcurrencyLimit
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A limit, and the parts of a request that give its key and its cost.

    `base` is the beginning of all of its keys: the place, the kind of count and the window. The amount is not part of
    it, so a changed amount keeps the counters.
    """

    limit: Limit
    base: str
    by: tuple[str, ...]
    statuses: frozenset[int]
    cost: int
    cost_header: str
    direction: str

    @property
    def afterwards(self) -> bool:
        """True if the cost of a request is known only at its end."""
        return bool(self.statuses) or self.limit.unit == "content-bytes" or self.cost_header == GRAPHQL


def as_tuple(written: Any) -> tuple[DeclaredLimit, ...]:
    """The limits as a tuple: users may write one limit or a list."""
    return written if isinstance(written, tuple) else () if written is None else (written,)


def limits_of_plan(plan: Plan) -> tuple[DeclaredLimit, ...]:
    """All limits of a plan."""
    concurrency = () if plan.concurrency is None else (ConcurrencyLimit(requests=plan.concurrency),)
    return (*as_tuple(plan.rate_limit), *as_tuple(plan.quota), *concurrency)


def counts_graphql(limits: Iterable[DeclaredLimit]) -> bool:
    """True if one of the limits counts the cost of operations of GraphQL."""
    return any(isinstance(one, RateLimit) and one.cost == GRAPHQL for one in limits)


def by_of(written: DeclaredLimit) -> tuple[str, ...]:
    """The key of the count, as entries of the descriptor. Empty means the consumer, or else the client's address."""
    return (written.by,) if isinstance(written.by, str) else written.by or ()


def name_of(place: str, written: DeclaredLimit) -> str:
    """The name of a limit at a place, which clients read in headers."""
    kind, _, rest = place.partition("/")
    before = {"route": "", "set": f"{rest}-"}.get(kind, f"{kind}-")
    by = "".join(f"-by-{one.replace(':', '-')}" for one in by_of(written))
    if isinstance(written, ConcurrencyLimit):
        return f"{before}concurrent-requests{by}"
    if isinstance(written, Quota):
        which = "" if written.direction == "both" else f"-{written.direction}"
        return f"{before}bytes{which}-per-{written.per}{by}"
    only = "".join(f"-{status}" for status in sorted(set(written.count)))
    what = "graphql-cost" if written.cost == GRAPHQL else "requests"
    return f"{before}{what}-per-{written.per}{by}{only and f'-of{only}'}"


def _limit(place: str, written: DeclaredLimit) -> pb.Limit:
    result = pb.Limit(name=name_of(place, written), by=by_of(written), shadow=written.shadow, cost=1)
    if isinstance(written, ConcurrencyLimit):
        result.algorithm, result.unit, result.amount = "concurrency", "concurrent-requests", written.requests
        result.lease = written.lease // _MICROSECOND
        return result
    result.per, result.timezone = written.per, written.timezone
    if isinstance(written, Quota):
        result.algorithm, result.unit, result.amount = "fixed_window", "content-bytes", written.bytes
        result.direction = written.direction
        return result
    result.algorithm = "token_bucket" if written.bucket else written.algorithm or "fixed_window"
    result.unit, result.amount = "requests", written.requests
    result.burst = (written.burst or written.requests) if written.bucket else 0
    result.rolling = written.align == "rolling"
    result.deny_on_error = written.on_error == "deny"
    result.statuses.extend(sorted(set(written.count)))
    if isinstance(written.cost, int):
        result.cost = written.cost
    else:
        result.cost_header = written.cost
    return result


def build(name: str, value: Any) -> pb.Limits:
    """The rule of a place: `name` is ``KEY:PLACE``, and `value` is the limits that are written there."""
    place = name.partition(":")[2]
    written = limits_of_plan(value) if isinstance(value, Plan) else as_tuple(value)
    return pb.Limits(
        name=name, place=place, limits=[_limit(place, limit) for limit in written if shared(limit)]
    )


def plan_rule(plan: str) -> str:
    """The name of the rule with the limits of a plan."""
    return f"plan:plan/{plan}"


def shared(written: DeclaredLimit) -> bool:
    """True if the policy server counts it for all proxies together."""
    return not isinstance(written, RateLimit) or written.scope == "global"


LIMITS = RuleType(name="limits", message=pb.Limits, build=build)


def _fixed(one: pb.Limit, common: Mapping[str, Any]) -> Limit:
    return FixedWindow(**common, per=cast("Period", one.per), zone=one.timezone or "UTC", rolling=one.rolling)


def _sliding(one: pb.Limit, common: Mapping[str, Any]) -> Limit:
    return SlidingWindow(**common, per=cast("Period", one.per))


def _bucket(one: pb.Limit, common: Mapping[str, Any]) -> Limit:
    return TokenBucket(**common, per=cast("Period", one.per), burst=one.burst or one.amount)


def _concurrency(one: pb.Limit, common: Mapping[str, Any]) -> Limit:
    return Concurrency(**common, lease=one.lease)


_ALGORITHMS: Mapping[str, Callable[[pb.Limit, Mapping[str, Any]], Limit]] = {
    "fixed_window": _fixed,
    "sliding_window": _sliding,
    "token_bucket": _bucket,
    "concurrency": _concurrency,
}


def load(message: pb.Limits) -> tuple[Counted, ...]:
    """The limits of a rule. Raises Refused for a limit that this version cannot count."""
    return tuple(_counted(message.place, limit) for limit in message.limits)


def _counted(place: str, one: pb.Limit) -> Counted:
    make = _ALGORITHMS.get(one.algorithm)
    if make is None:
        raise Refused(f"{one.name}: this policy server has no algorithm '{one.algorithm}'")
    if one.algorithm != "concurrency" and one.per not in PERIODS:
        raise Refused(f"{one.name}: there is no period '{one.per}'")
    if one.amount < 1:
        raise Refused(f"{one.name}: a limit is at least 1")
    limit = make(
        one,
        {
            "name": one.name,
            "amount": one.amount,
            "unit": one.unit,
            "shadow": one.shadow,
            "allow_on_error": not one.deny_on_error,
        },
    )
    return Counted(
        limit=limit,
        base="|".join([place, *_window(one)]),
        by=tuple(one.by),
        statuses=frozenset(one.statuses),
        cost=one.cost or 1,
        cost_header=one.cost_header,
        direction=one.direction,
    )


def _window(one: pb.Limit) -> Iterable[str]:
    yield one.unit + (f"-{one.direction}" if one.direction else "")
    yield one.algorithm
    if one.per:
        rolling = "/rolling" if one.rolling else ""
        zone = f"/{one.timezone}" if one.timezone not in ("", "UTC") and not rolling else ""
        yield f"{one.per}{zone}{rolling}"
    if one.statuses:
        yield ",".join(map(str, one.statuses))
    if one.cost_header == GRAPHQL:
        yield GRAPHQL
