"""Leases in Envoy: a script admits requests that the counters have already been debited for, without a call.

The script (leases.lua) only admits. If a request has no lease, the script sets metadata, and the rate limit filter after
it asks the policy server as it does on routes without leases. So every rejection is a decision of the policy server.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.type.metadata.v3 import metadata_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.lua_literals import lua, script
from filters.model.identity import NAMESPACE
from filters.model.limits import Limit as DeclaredLimit
from filters.policy import HttpFilter
from filters.policy_server import POLICY_SERVER
from filters.rate_limit.effective import EffectiveLimits
from filters.rate_limit.engine.algorithms import Limit, TokenBucket
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.limit_rules import by_of
from protos import limits_pb2 as pb

FILTER = "xds.leases"
ASK = "ask"
"""The key of the metadata that the script sets if the policy server must decide. Its namespace is `FILTER`."""
METHOD = "/gateway.limits.v1.Leases/Take"
SHARE_OF_LIMIT = 16
"""A lease has at most this part of a limit. Limits with less than twice as many requests have no leases."""

_CONSTANTS = {
    "NAMESPACE": FILTER,
    "ASK": ASK,
    "IDENTITY": NAMESPACE,
    "CONSUMER": descriptors.CONSUMER,
    "PLAN": descriptors.PLAN,
    "ADDRESS": descriptors.ADDRESS,
    "COUNTED": descriptors.COUNTED,
    "CLUSTER": POLICY_SERVER,
    "METHOD": METHOD,
}


def http_filter() -> HttpFilter:
    """The filter of every listener, before the rate limit filters."""
    config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
    config.default_source_code.inline_string = script(
        _CONSTANTS, "grpc_call.lua", "rate_limit/envoy/leases.lua"
    )
    return HttpFilter(name=FILTER, config=config)


def possible(found: EffectiveLimits) -> bool:
    """True if requests with these limits may be admitted by leases.

    Each limit must count requests at a cost that is known before. A limit of the route must be large enough; those of
    plans may be small, because the policy server then refuses the lease.
    """
    return all(isinstance(one, DeclaredLimit) and _leased(one) for one in found.written)


def _leased(limit: DeclaredLimit) -> bool:
    if limit.exact or limit.count or isinstance(limit.cost, str):
        return False
    size = (limit.burst or limit.requests) if limit.bucket else limit.requests
    return size // limit.cost >= 2 * SHARE_OF_LIMIT


def largest_lease(limit: Limit, cost: int) -> int:
    """The most requests of this cost that one lease may have, possibly 0."""
    size = limit.burst if isinstance(limit, TokenBucket) else limit.amount
    return size // SHARE_OF_LIMIT // cost


def on_route(route: str, found: EffectiveLimits, styles: Iterable[str]) -> lua_pb2.LuaPerRoute:
    """The filter's configuration of a route with these limits, whose headers have these styles."""
    names = {by for one in found.written for by in by_of(one) or (descriptors.CONSUMER,)}
    question = pb.LeaseRequest(rules=found.rules, plans=found.plans, styles=styles)
    if descriptors.ROUTE in names:
        question.entries.add(key=descriptors.ROUTE.encode(), value=route.encode())
    rule = {
        "question": question.SerializeToString(deterministic=True),
        "consumer": descriptors.CONSUMER in names or found.plans,
        "plan": found.plans,
        "ip": "ip" in names,
        "headers": sorted(one for one in names if one.startswith("header:")),
        "claims": sorted(one for one in names if one.startswith("claim:")),
    }
    context = struct_pb2.Struct()
    context.update({"rule": lua(rule)})
    return lua_pb2.LuaPerRoute(filter_context=context)


def asked() -> descriptors.Action:
    """The entry without which Envoy does not call the policy server: it exists if the script set the metadata."""
    key = metadata_pb2.MetadataKey(key=FILTER, path=[metadata_pb2.MetadataKey.PathSegment(key=ASK)])
    return descriptors.Action(
        metadata=route_components_pb2.RateLimit.Action.MetaData(descriptor_key=ASK, metadata_key=key)
    )
