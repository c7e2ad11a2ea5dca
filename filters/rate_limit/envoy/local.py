"""Limits of `scope: local`: token buckets in each proxy, by Envoy's local rate limit filter, which calls no service.

Its buckets belong to one route of one proxy. The key is an entry with any value: Envoy makes a bucket for each new
value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.type.v3 import percent_pb2, token_bucket_pb2
from google.protobuf import duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from filters.model.limits import MOST, Limit
from filters.policy import HttpFilter, header
from filters.rate_limit import client_headers
from filters.rate_limit.engine.windows import LENGTHS, SECOND
from filters.rate_limit.envoy import descriptors, local_headers

FILTER = "xds.rate_limit.local"
LIMIT = "limit"
CLIENTS = 10_000
"""Clients that a route remembers. Envoy removes the client that was idle longest; it comes back with a full bucket."""
_ALWAYS = base_pb2.RuntimeFractionalPercent(
    default_value=percent_pb2.FractionalPercent(
        numerator=100, denominator=percent_pb2.FractionalPercent.HUNDRED
    )
)

Entries = tuple[tuple[str, descriptors.Action], ...]
"""The keys of a descriptor, with the actions that fill them."""


def on_route(
    route: str,
    places: Collection[tuple[str, Limit]],
    styles: Collection[str],
    *,
    identified: bool | None = None,
) -> dict[str, Message]:
    """The filter configuration of a route with local limits, each with its place, and with headers in these styles.

    `identified` is true if every request that is counted has a consumer, and false if none has one. The route then
    has only the bucket that it can need.
    """
    limits = [limit for _, limit in places]
    config = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix="local",
        token_bucket=_bucket(MOST, MOST, SECOND),
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        always_consume_default_token_bucket=wrappers_pb2.BoolValue(value=False),
        max_dynamic_descriptors=wrappers_pb2.UInt32Value(value=CLIENTS),
        response_headers_to_add=[header("retry-after", str(max(map(_retry_after, limits))))],
    )
    for number, limit in enumerate(limits):
        for name, known, unmatched in _ways(limit, f"{route}/{number}", identified):
            entries = (*known, *unmatched)
            config.rate_limits.append(
                route_components_pb2.RateLimit(
                    actions=[descriptors.word(LIMIT, name), *(action for _, action in entries)]
                )
            )
            config.descriptors.append(_descriptor(limit, name, (key for key, _ in known)))
    if not styles:
        return {FILTER: config}
    config.enable_x_ratelimit_headers = ratelimit_pb2.DRAFT_VERSION_03
    return {FILTER: config, local_headers.FILTER: local_headers.on_route(places, styles)}


def http_filters() -> tuple[HttpFilter, ...]:
    """The filters of every listener. They limit nothing and add no headers unless a route configures them."""
    config = local_rate_limit_pb2.LocalRateLimit(stat_prefix="local")
    return (local_headers.http_filter(), HttpFilter(name=FILTER, config=config))


def _ways(limit: Limit, name: str, identified: bool | None) -> Iterator[tuple[str, Entries, Entries]]:
    """The buckets that may count a request: a name, the entries of its key, and entries that must be absent.

    Envoy skips the entry of a consumer if there is none. A descriptor with one more entry has no bucket.
    """
    by = (limit.by,) if isinstance(limit.by, str) else limit.by or ("consumer",)
    rest = tuple(entry for one in by if one != "consumer" for entry in _entries(one))
    if "consumer" not in by:
        yield name, rest, ()
        return
    if identified is not False:
        yield f"{name}/consumer", (_consumer(skip=False), *rest), ()
    if not identified:
        address = () if "ip" in by else _entries("ip")
        unmatched = (_consumer(skip=True),) if identified is None else ()
        yield f"{name}/address", (*address, *rest), unmatched


def _consumer(*, skip: bool) -> tuple[str, descriptors.Action]:
    return descriptors.CONSUMER, descriptors.of_identity(descriptors.CONSUMER, skip_if_absent=skip)


def _entries(by: str) -> Entries:
    kind, _, name = by.partition(":")
    if kind == "ip":
        return ((descriptors.ADDRESS, descriptors.address()),)
    if kind == "header":
        quoted = "'" + name.lower().replace("'", "\\'") + "'"
        found = f"request.headers[{quoted}]"
        # A missing header counts as a value, so omitting it does not evade the limit.
        text = f"{quoted} in request.headers && {found} != '' ? {found} : '-'"
        return ((by, descriptors.expression(by, text)),)
    return ()


def _descriptor(limit: Limit, name: str, keys: Iterable[str]) -> ratelimit_pb2.LocalRateLimitDescriptor:
    entry = ratelimit_pb2.RateLimitDescriptor.Entry
    return ratelimit_pb2.LocalRateLimitDescriptor(
        entries=[entry(key=LIMIT, value=name), *(entry(key=key) for key in keys)],
        token_bucket=_bucket(limit.burst or limit.requests, limit.requests, LENGTHS[limit.per]),
    )


def _bucket(size: int, refill: int, length: int) -> token_bucket_pb2.TokenBucket:
    """A bucket that gets `refill` tokens in each `length` (microseconds)."""
    return token_bucket_pb2.TokenBucket(
        max_tokens=size,
        tokens_per_fill=wrappers_pb2.UInt32Value(value=refill),
        fill_interval=duration_pb2.Duration(seconds=length // SECOND),
    )


def _retry_after(limit: Limit) -> int:
    """Seconds until an empty bucket gets a token."""
    return client_headers.seconds(-(-LENGTHS[limit.per] // limit.requests))
