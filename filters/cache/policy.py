"""cache: a script in Envoy keeps responses, and the policy server is the second level.

Envoy's own cache filters skip the policies after them, know no Vary and cannot be purged (docs/decisions/078).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.cache.settings import CACHEABLE, MOST_VARY, CacheSettings
from filters.language import Mistake
from filters.lua_literals import lua, script
from filters.model import claims
from filters.model.identity import NAMESPACE as IDENTITY
from filters.model.methods import methods
from filters.policy import LISTS, Context, HttpFilter, Policy, RoutePart, Stage
from filters.policy_server import POLICY_SERVER, SERVICE
from filters.reasons import Reason

FILTER = "xds.cache"
CACHE = "gateway.cache.v1.Cache"
"""The gRPC service of policy servers (protos/cache.proto)."""
WORKER_BYTES = 64 << 20
"""Bytes of responses that one worker of Envoy keeps."""
_USUAL = ("accept", "accept-encoding", "accept-language", "origin")
"""Request headers by which responses often vary. Others are learned from the first response that names them."""
_NOT_STORED = (
    *(
        "age",
        "alt-svc",
        "cache-status",
        "cache-tag",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
    ),
    *("server", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via"),
    *("x-envoy-upstream-service-time", "x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining"),
    *("x-ratelimit-reset", "ratelimit", "ratelimit-policy", ":status"),
)
"""Headers that belong to a connection or to one request (RFC 9111 section 3.1)."""
_NOT_IN_304 = ("content-encoding", "content-language", "content-length", "content-range", "content-type")
_KEPT = (":status", "date", "server", "set-cookie", "x-request-id")
"""Headers of a response that stay if a stored one takes its place."""


_OF_ONE_TOKEN = ("at_hash", "c_hash", "exp", "iat", "jti", "nbf", "nonce", "s_hash", "uti")
"""Claims of one token alone (RFC 7519 section 4.1, OpenID Connect Core section 3.3.2.11). They say nothing of what the caller may do."""
_ALL = 1_000
"""More values than a header has."""


def _set(names: Iterable[Any]) -> dict[Any, bool]:
    return dict.fromkeys(names, True)


_CONSTANTS = {
    "NAMESPACE": FILTER,
    "IDENTITY": IDENTITY,
    "CLUSTER": POLICY_SERVER,
    "LOOKUP": f"/{CACHE}/Lookup",
    "AWAIT": f"/{CACHE}/Await",
    "STORE": f"/{CACHE}/Store",
    "PURGE": f"/{CACHE}/PurgeAll",
    "CHANGES": f"/{CACHE}/Changes",
    "TIMEOUT": 300,
    "LONGEST": 5_000,
    "INTERVAL": 500,
    "LIMIT": WORKER_BYTES,
    "MOST_NAMES": MOST_VARY,
    "WAITING": 16_384,
    "FORGOTTEN": 300_000,
    "MOST_PURGES": 1_000,
    "LONGEST_URL": 4_096,
    "MOST_HOSTS": 1_000,
    "USUAL": _USUAL,
    "UNSAFE": _set(("DELETE", "PATCH", "POST", "PUT")),
    "NOT_STORED": _set(_NOT_STORED),
    "NOT_IN_304": _set(_NOT_IN_304),
    "KEPT": _set(_KEPT),
    "CACHEABLE": _set(CACHEABLE),
}


def _rule(settings: CacheSettings, context: Context) -> dict[str, Any]:
    """The rule of a route for the script."""
    owners = settings.owners or (("caller",) if methods(context.effective) else ("shared",))
    result: dict[str, Any] = {
        "route": context.route,
        "version": _version(context),
        "own": "caller" in owners,
        "methods": _set(settings.methods),
        "statuses": _set(settings.statuses),
        "vary": sorted({name.lower() for name in settings.vary}),
        "by": [_owner(one, context) for one in owners if one != "shared"],
        "override": settings.override,
        "obey": settings.obey_clients,
        "stale": int(settings.stale_while_revalidate.total_seconds()),
        "stale_if_error": int(settings.stale_if_error.total_seconds()),
        "max_body": int(settings.max_body),
        "added": _added(context),
    }
    if settings.ttl is not None:
        result["ttl"] = int(settings.ttl.total_seconds())
    return result


def _version(context: Context) -> str:
    """A hash of all policies of the route, and of its composition. Responses that were stored under others are not used."""
    text = repr(sorted(context.effective.items(), key=lambda one: one[0])) + context.composition
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _owner(written: str, context: Context) -> dict[str, Any]:
    kind, _, name = written.partition(":")
    if kind == "caller" and context.composition:
        # an answer of the composer may depend on each claim, and on the plan
        return {"kind": kind, "but": _set(_OF_ONE_TOKEN)}
    if kind == "claim":
        return {"kind": kind, "paths": [list(path) for path in claims.paths(name)]}
    return {"kind": kind, "name": name.lower()} if name else {"kind": kind}


def _added(context: Context) -> dict[str, int]:
    """How many values the route adds to each header of a response. Envoy adds them to a hit too."""
    found = {name: 1 if name in LISTS else _ALL for name, _ in context.lifecycle}
    changes = context.effective.get("response_headers")
    if changes is not None:
        found.update((name.lower(), found.get(name.lower(), 0) + 1) for name in changes.add)
        found.update((name.lower(), _ALL) for name in changes.set)
    return found


class Cache(Policy[CacheSettings]):
    """Compiled into a script in Envoy, right before the router."""

    key = "cache"
    stage = Stage.CACHE
    settings = CacheSettings
    enforced_by = "Envoy (Lua), with the policy server as second level"
    answers = ((FILTER, "hit"),)
    reasons = (
        Reason(
            name="not_cached",
            title="The response is not in the cache",
            status=504,
            when=f"metadata.filter_metadata['{FILTER}'].failure == 'not_cached'",
        ),
    )

    def check(self, settings: CacheSettings, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of what keeps responses apart."""
        identified = bool(methods(context.effective))
        for key in ("ext_authz", "ext_proc"):
            if settings.owners is None and not identified and key in context.effective:
                message = f"'{key}' may tell the upstream who calls, and the cache would not know"
                yield Mistake(message, "write by: shared, or by: header:NAME")
        for one in settings.owners or ():
            if one.partition(":")[0] in ("caller", "consumer", "plan", "claim") and not identified:
                remedy = "add a way to authenticate, or write shared"
                yield Mistake("no caller is identified here", remedy, path=("by",), value=one)

    def http_filters(self, used: Iterable[CacheSettings], context: Context) -> tuple[HttpFilter, ...]:
        config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
        config.default_source_code.inline_string = script(
            _CONSTANTS, "grpc_call.lua", "request_values.lua", "sha.lua", "cache/cache.lua"
        )
        return (HttpFilter(name=FILTER, config=config),)

    def on_route(self, settings: CacheSettings, context: Context) -> RoutePart:
        filter_context = struct_pb2.Struct()
        filter_context.update({"rule": lua(_rule(settings, context))})
        return RoutePart(filter_configs={FILTER: lua_pb2.LuaPerRoute(filter_context=filter_context)})

    def internal_services(self, used: Iterable[CacheSettings], context: Context) -> Iterable[str]:
        return (SERVICE,) if any(True for _ in used) else ()

    def for_local_answers(self, settings: CacheSettings) -> None:
        """Responses of the gateway itself are not stored."""
