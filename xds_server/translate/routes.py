"""Routes (RDS): each route is translated and serialized once, and joined into its virtual hosts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.type.http.v3 import cookie_pb2 as http_cookie_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf.message import Message

from filters import body_limit
from filters.pipeline import POLICIES
from filters.policy import LISTS, NOTHING, Context, Policy, RoutePart, Variant, header
from xds_server.gateway.model.paths import PathMatch
from xds_server.gateway.model.policies import by_key
from xds_server.gateway.model.routes import Route, ValueMatch
from xds_server.gateway.raw import merged
from xds_server.translate import adaptive_concurrency, names
from xds_server.translate.actions import NEVER, shares, write_action
from xds_server.translate.compositions import rule_name
from xds_server.translate.protobuf import boolean, duration, packed, uint64

STATEFUL_SESSION = "envoy.filters.http.stateful_session"
_REQUESTED_METHOD = "access-control-request-method"
"""The method of the request that follows a preflight (Fetch standard, section 3.2.2)."""
_PORTS = {"http": 80, "https": 443}
"""RFC 9110 section 4.2."""


def _regex(pattern: str) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=pattern)


def _path(path: PathMatch, match: pb.RouteMatch) -> None:
    if path.kind in ("template", "regex") or path.spelled:
        match.safe_regex.regex = path.regex
    elif path.kind == "exact":
        match.path = path.value
    elif path.value.endswith("/") or not path.value:
        match.prefix = path.value or "/"
    else:
        match.path_separated_prefix = path.value


def _string(match: ValueMatch, matcher: string_pb2.StringMatcher) -> None:
    if match.regex is not None:
        matcher.safe_regex.regex = match.regex
        return
    kind = next(
        kind for kind in ("exact", "prefix", "suffix", "contains") if getattr(match, kind) is not None
    )
    setattr(matcher, kind, getattr(match, kind))


def _header(name: str, match: ValueMatch, matcher: pb.HeaderMatcher) -> None:
    matcher.name, matcher.invert_match = name.lower(), match.invert
    if match.present is not None:
        matcher.present_match = match.present
    else:
        _string(match, matcher.string_match)


def _query(name: str, match: ValueMatch, result: pb.RouteMatch) -> None:
    matcher = result.query_parameters.add(name=name)
    if match.present is not None:
        matcher.present_match = match.present is not match.invert
    elif match.invert:
        matcher.present_match = True
        _no_parameter(name, match, result.headers.add(name=":path", invert_match=True))
    else:
        _string(match, matcher.string_match)


def _no_parameter(name: str, match: ValueMatch, matcher: pb.HeaderMatcher) -> None:
    """Match the absence of a parameter in the whole path, because Envoy inverts only conditions on headers."""
    before = "[^&]*" if match.suffix is not None or match.contains is not None else ""
    after = "[^&]*" if match.prefix is not None or match.contains is not None else ""
    text = match.exact or match.prefix or match.suffix or match.contains or ""
    value = f"={before}{re.escape(text)}{after}" if text else f"(?:={before}{after})?"
    matcher.string_match.safe_regex.regex = rf"[^?]*\?(?:.*&)?{re.escape(name)}{value}(?:&.*)?"


def _methods(methods: Iterable[str], matcher: pb.HeaderMatcher, header: str = ":method") -> None:
    matcher.name = header
    wanted = sorted(set(methods))
    if len(wanted) == 1:
        matcher.string_match.exact = wanted[0]
    else:
        matcher.string_match.safe_regex.regex = "|".join(wanted)


def _match(route: Route, methods: Iterable[str], match: pb.RouteMatch) -> None:
    """Write the conditions of a request in place, because a gateway has many routes and copies cost too much."""
    _path(route.match, match)
    if methods:
        _methods(methods, match.headers.add())
    for name, value in sorted(route.headers.items()) if route.headers else ():
        _header(name, value, match.headers.add())
    for name, value in sorted(route.query.items()) if route.query else ():
        _query(name, value, match)


def _filter_configs(route: Route) -> Iterator[tuple[str, Message]]:
    if route.max_body is not None:
        yield from body_limit.on_route(route.max_body).items()
    cookie = route.session_affinity.cookie if route.session_affinity else None
    if cookie is not None:
        inner = http_cookie_pb2.Cookie(name=cookie.name, ttl=duration(cookie.ttl), path=cookie.path)
        state = cookie_pb2.CookieBasedSessionState(cookie=inner)
        session = stateful_session_pb2.StatefulSession()
        session.session_state.name = "envoy.http.stateful_session.cookie"
        session.session_state.typed_config.CopyFrom(packed(state))
        yield STATEFUL_SESSION, stateful_session_pb2.StatefulSessionPerRoute(stateful_session=session)


def _add(part: RoutePart, result: pb.Route) -> None:
    for name, config in part.filter_configs.items():
        result.typed_per_filter_config[name].CopyFrom(packed(config))
    if part.request_headers or part.request_headers_to_remove:
        result.request_headers_to_add.extend(part.request_headers)
        result.request_headers_to_remove.extend(part.request_headers_to_remove)
    if part.response_headers or part.response_headers_to_remove:
        result.response_headers_to_add.extend(part.response_headers)
        result.response_headers_to_remove.extend(part.response_headers_to_remove)
    for namespace, values in part.metadata.items():
        result.metadata.filter_metadata[namespace].CopyFrom(values)
    if part.tracing is not None:
        result.tracing.CopyFrom(part.tracing)


def translate(
    name: str,
    route: Route,
    settings: Mapping[str, Any],
    context: Context,
    *,
    grpc: bool = False,
    limited: Collection[str] = (),
) -> tuple[bytes, ...]:
    """Return a route as serialized Envoy routes, in the order in which Envoy tries them.

    `grpc` is true if all its targets use gRPC. `limited` are the upstreams with `adaptive_concurrency`. Raises Mistake
    for raw fields.
    """
    result = pb.Route(name=name)
    _match(route, route.methods, result.match)
    write_action(name, route, result, context.contents, grpc)
    if route.max_body is not None or route.session_affinity is not None:
        for filter_name, config in _filter_configs(route):
            result.typed_per_filter_config[filter_name].CopyFrom(packed(config))
    here = context.on_route(
        name,
        settings,
        route.match.named_regex,
        forwards=route.forwards,
        composition="" if route.composed is None else rule_name(name, route, context.contents),
    )
    parts = [*_lifecycle(here), *_parts(settings, here)]
    for part in parts:
        _add(part, result)
    if buffer := max((part.buffer for part in parts), default=0):
        result.request_body_buffer_limit.CopyFrom(uint64(buffer))
    if route.envoy is not None:
        result = merged(result, route.envoy)
    variants = [variant for part in parts for variant in part.variants]
    if variants and route.time_limit(grpc):
        result.request_headers_to_add.append(_grpc_timeout(route.time_limit(grpc)))
    found = _beside(name, route, parts, variants)
    pages = for_pages(name, settings, context) if variants else ()
    for share in shares(route, result):
        found += _upgrades(route, share)
        adaptive_concurrency.enable(share, limited)
        if variants:
            found += [_variant(name, route, share, variant, pages) for variant in variants]
        else:
            for one in _of_methods(route, parts, share):
                found += [*_ports(route, one), one]
    return tuple([one.SerializeToString(deterministic=True) for one in found])


def _grpc_timeout(limit: timedelta) -> base_pb2.HeaderValueOption:
    """Return the time limit of a call, for clients that send none (gRPC's PROTOCOL-HTTP2.md: at most eight digits)."""
    milliseconds = max(1, round(limit / timedelta(milliseconds=1)))
    text = f"{milliseconds}m" if milliseconds < 10**8 else f"{milliseconds // 1000}S"
    option = header("grpc-timeout", text)
    option.append_action = base_pb2.HeaderValueOption.ADD_IF_ABSENT
    return option


def _beside(
    name: str, route: Route, parts: Iterable[RoutePart], variants: Iterable[Variant]
) -> list[pb.Route]:
    """Return the routes that policies need before the route itself."""
    needed = [part for part in parts if part.own_paths or part.answers_preflight]
    if not needed:
        return []
    methods = {method for variant in variants if variant.status == 0 for method in variant.methods}
    if route.methods:
        methods = methods.intersection(route.methods) if methods else set(route.methods)
    return [*_own_paths(name, needed), *_preflights(name, route, methods, needed)]


def _variant(
    name: str, route: Route, result: pb.Route, variant: Variant, pages: Iterable[RoutePart]
) -> pb.Route:
    """Return the route of a part of the requests of `result`. `pages` are the parts of rejections."""
    own = pb.Route()
    if variant.status == 0:
        own.CopyFrom(result)
        _add(variant.part, own)
        if variant.part.buffer > own.request_body_buffer_limit.value:
            own.request_body_buffer_limit.CopyFrom(uint64(variant.part.buffer))
    else:
        own.name = names.rejection(variant.status, name, variant.name)
        own.match.CopyFrom(result.match)
        own.direct_response.status = variant.status
        if variant.allow:
            allowed = sorted({*variant.allow} & {*(route.methods or variant.allow)})
            own.response_headers_to_add.append(header("allow", ", ".join(allowed)))
        for part in pages:
            _add(part, own)
    _narrow(variant, own.match)
    return own


def _narrow(variant: Variant, match: pb.RouteMatch) -> None:
    """Add the conditions of a part of the requests. Envoy tests them in this order, so the expression is the last."""
    if variant.content_type:
        match.headers.add(name="content-type").string_match.prefix = variant.content_type
    if variant.methods:
        _methods(variant.methods, match.headers.add())
    if variant.has_query:
        match.headers.add(name=":path").string_match.contains = "?"
    if variant.path:
        match.headers.add(name=":path").string_match.safe_regex.regex = variant.path


def _parts(settings: Mapping[str, Any], context: Context) -> Iterator[RoutePart]:
    """Yield the parts that the policies contribute, in their order."""
    for policy in _order(frozenset(settings)):
        key = policy.key
        part = policy.on_route(settings[key], context) if key in settings else policy.off_route(context)
        if part is not NOTHING:
            yield part


def _lifecycle(context: Context) -> Iterator[RoutePart]:
    """Yield the headers by which responses announce the end of their API. Policies of the route may replace them."""
    options = [
        header(name, value.replace("%", "%%"), append=name in LISTS) for name, value in context.lifecycle
    ]
    if options:
        yield RoutePart(response_headers=tuple(options))


@cache
def _order(keys: frozenset[str]) -> tuple[Policy[Any], ...]:
    """Return the policies with these keys, and those that a route has without settings too."""
    return tuple(
        policy for policy in POLICIES if policy.key in keys or type(policy).off_route is not Policy.off_route
    )


def _own_paths(name: str, parts: Iterable[RoutePart]) -> Iterator[pb.Route]:
    """Yield routes whose requests a policy's filter always answers, so that no action follows."""
    for part in parts:
        for path in part.own_paths:
            result = pb.Route(name=f"{name}{path}", match=pb.RouteMatch(path=path))
            result.direct_response.status = 404
            _add(RoutePart(filter_configs=part.filter_configs), result)
            yield result


def _preflights(
    name: str, route: Route, methods: Collection[str], parts: Iterable[RoutePart]
) -> Iterator[pb.Route]:
    """Yield a route for CORS preflights, which are OPTIONS, if the route has only some other `methods`."""
    for part in parts:
        if part.answers_preflight and methods and "OPTIONS" not in methods:
            result = pb.Route(name=f"{name}/preflight")
            _match(route, ("OPTIONS",), result.match)
            _methods(methods, result.match.headers.add(), _REQUESTED_METHOD)
            result.match.headers.add(name="origin").string_match.safe_regex.regex = ".+"
            result.direct_response.status = 403  # never sent: the filter responds to each of these
            _add(RoutePart(filter_configs=part.filter_configs), result)
            yield result


def _of_methods(route: Route, parts: Iterable[RoutePart], result: pb.Route) -> Iterator[pb.Route]:
    """Yield the route itself.

    If it answers preflights and has OPTIONS too, it leaves preflights for other methods to other routes.
    """
    answers = "OPTIONS" in route.methods and any(part.answers_preflight for part in parts)
    at = next((at for at, header in enumerate(result.match.headers) if header.name == ":method"), None)
    if not answers or at is None:  # raw fields may have removed the condition
        yield result
        return
    preflight = pb.HeaderMatcher(name=_REQUESTED_METHOD, treat_missing_header_as_empty=True)
    preflight.string_match.safe_regex.regex = "|".join(("", *sorted(set(route.methods))))
    of_no_page = pb.HeaderMatcher(name="origin", treat_missing_header_as_empty=True)
    of_no_page.string_match.exact = ""
    others = [method for method in route.methods if method != "OPTIONS"]
    for methods, more in ((["OPTIONS"], [preflight]), (["OPTIONS"], [of_no_page]), (others, [])):
        if methods:
            own = pb.Route()
            own.CopyFrom(result)
            own.match.headers[at].Clear()
            _methods(methods, own.match.headers[at])
            own.match.headers.extend(more)
            yield own


def _upgrades(route: Route, result: pb.Route) -> Iterator[pb.Route]:
    """Yield the WebSocket upgrade of a route: the same route without timeouts and body limits."""
    if route.websocket and result.HasField("route"):
        upgrade = pb.Route()
        upgrade.CopyFrom(result)
        matcher = string_pb2.StringMatcher(exact="websocket", ignore_case=True)
        upgrade.match.headers.append(pb.HeaderMatcher(name="upgrade", string_match=matcher))
        token = string_pb2.StringMatcher(contains="upgrade", ignore_case=True)
        upgrade.match.headers.append(pb.HeaderMatcher(name="connection", string_match=token))
        _add(RoutePart(filter_configs=body_limit.off_route()), upgrade)
        upgrade.route.timeout.CopyFrom(duration(NEVER))
        upgrade.route.upgrade_configs.add(upgrade_type="websocket", enabled=boolean(True))
        upgrade.route.ClearField("retry_policy")
        yield upgrade


def _ports(route: Route, result: pb.Route) -> Iterator[pb.Route]:
    """Yield the redirect to another scheme for requests with a port, which Envoy keeps unless another is given."""
    redirect = result.redirect
    if (
        route.redirect is not None
        and redirect.scheme_redirect
        and not (redirect.host_redirect or redirect.port_redirect)
    ):
        variant = pb.Route()
        variant.CopyFrom(result)
        variant.match.headers.append(has_port())
        variant.redirect.port_redirect = _PORTS[redirect.scheme_redirect]
        yield variant


def has_port() -> pb.HeaderMatcher:
    """Return the condition that the host of a request has a port."""
    matcher = string_pb2.StringMatcher(safe_regex=_regex(r".*:\d+"))
    return pb.HeaderMatcher(name=":authority", string_match=matcher)


def for_pages(name: str, settings: Mapping[str, Any], context: Context) -> tuple[RoutePart, ...]:
    """Return the parts for responses of the gateway itself that browser pages may read, and the API's own headers."""
    here = context.on_route(name, settings)
    policies = {key: policy for key, policy in by_key().items() if policy.for_pages and key in settings}
    return (*_lifecycle(here), *(policy.on_route(settings[key], here) for key, policy in policies.items()))


def not_found(parts: Iterable[RoutePart]) -> Iterator[bytes]:
    """Yield the response if no route matches. Without parts there is none, and Envoy itself answers 404."""
    for part in parts:
        result = pb.Route(name=names.NOT_FOUND, match=pb.RouteMatch(prefix="/"))
        result.direct_response.status = 404
        _add(part, result)
        yield result.SerializeToString(deterministic=True)


def not_allowed(name: str, route: Route, allow: Iterable[str], parts: Iterable[RoutePart] = ()) -> bytes:
    """Return the response if only the method differs: 405 with Allow (RFC 9110 section 15.5.6)."""
    result = pb.Route(name=names.method_not_allowed(name))
    _match(route, (), result.match)
    result.direct_response.status = 405
    result.response_headers_to_add.append(header("allow", ", ".join(sorted(set(allow)))))
    for part in parts:
        _add(part, result)
    return result.SerializeToString(deterministic=True)


_AUTHORITY = r"(?:[!-+.0-9;-=A-Z^-~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
"""A host or an address in brackets, and a port (RFC 9110 section 7.2). It is short, because Envoys with another
bootstrap accept only 100 instructions."""


def bad_authority() -> pb.Route:
    """Return a route that rejects an authority that is not a host and a port.

    An upstream may read another host in it than Envoy, and such a request would get around the routes of that host.
    The route rejects user information (RFC 9110 section 4.2.4), several ports, and several Host lines (RFC 9112
    section 3.2), which Envoy joins by commas.
    """
    result = pb.Route(name=names.BAD_AUTHORITY, match=pb.RouteMatch(prefix="/"))
    matcher = string_pb2.StringMatcher(safe_regex=_regex(_AUTHORITY))
    result.match.headers.append(pb.HeaderMatcher(name=":authority", string_match=matcher, invert_match=True))
    result.direct_response.status = 400
    return result


def bad_paths() -> Iterator[bytes]:
    """Yield routes that reject dot segments with parameters (``/..;x/``), because some upstreams would resolve them.

    Envoy resolves ``..`` and ``%2e%2e``, but not the latter with a parameter. The routes match plain text, which
    costs less than an expression, so they also reject a query with such a path.
    """
    for segment in ("/..;", "/.;"):
        result = pb.Route(name=names.BAD_PATH, match=pb.RouteMatch(prefix="/"))
        matcher = string_pb2.StringMatcher(contains=segment)
        result.match.headers.append(pb.HeaderMatcher(name=":path", string_match=matcher))
        result.direct_response.status = 400
        yield result.SerializeToString(deterministic=True)
