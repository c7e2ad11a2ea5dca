"""Checks of aggregates across the gateway: upstreams that their calls cannot reach, and caches that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from filters.language import Problem
from xds_server.gateway import caller_uses
from xds_server.gateway.caller_uses import OF_CALLER, CallerUse
from xds_server.gateway.model.aggregate import SAFE
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.routes import Route
from xds_server.gateway.model.upstreams import Upstream


def check(name: str, route: Route, effective: Mapping[str, Any], sections: Sections) -> Iterator[Problem]:
    """Yield a problem for each call to an upstream that has no answers in JSON over HTTP, and for calls that a GET would make.

    A cache that gives what is for one caller to others is a problem too. `effective` are the policies of the route.
    """
    if route.aggregate is None:
        return
    writes = [call for call, one in route.aggregate.calls.items() if one.verb not in SAFE]
    if writes and not route.methods:
        yield Problem(
            path=("routes", name),
            message=f"the call '{writes[0]}' changes something, and is made for requests with any method, also GET and HEAD",
            remedy="write methods: [POST]",
            severity="warning",
        )
    for call, one in route.aggregate.calls.items():
        upstream = sections.upstreams.get(one.upstream)
        found = why_not(upstream) if upstream is not None else None
        if found is not None:
            message, remedy = found
            yield Problem(
                path=("routes", name, "aggregate", "calls", call, "upstream"),
                message=f"the upstream '{one.upstream}' {message}",
                remedy=remedy,
            )
    path = ("routes", name, "aggregate")
    uses = [
        CallerUse(str(source), "what is made of it", (*path, *place))
        for place, source in route.aggregate.sources()
        if source.kind in OF_CALLER
    ]
    yield from caller_uses.shared(uses, effective)
    yield from caller_uses.unidentified(uses, effective)


def why_not(upstream: Upstream) -> tuple[str, str] | None:
    """Return why no call of the composer can have an answer of an upstream, and a remedy."""
    if upstream.protocol in ("grpc", "tcp"):
        message = f"has protocol: {upstream.protocol}, and calls are requests of HTTP with answers in JSON"
        return message, "name an upstream with another protocol"
    if upstream.original_destination:
        return (
            "is wherever a client connects to, and a call is from no client",
            "name an upstream with endpoints",
        )
    if upstream.mock is not None:
        return "has a mock, which answers only requests of clients", "name an upstream without a mock"
    return None
