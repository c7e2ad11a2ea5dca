"""Actions of routes: forwarding with its rewrites, retries and mirrors, redirects, and responses of the gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2
from envoy.type.v3 import percent_pb2

from filters.headers import request_changes, response_changes
from filters.model import escapes
from filters.policy import RoutePart, header
from xds_server.gateway.graphql_schemas import Contents
from xds_server.gateway.model.actions import Backend, Mirror, Redirect, Respond, Rewrite
from xds_server.gateway.model.paths import PathMatch
from xds_server.gateway.model.routes import Retry, Route, SessionAffinity
from xds_server.translate import compositions, names
from xds_server.translate.protobuf import fill, packed

NEVER = timedelta(0)
_MILLION = percent_pb2.FractionalPercent.MILLION
_SERVICE_UNAVAILABLE = pb.RouteAction.SERVICE_UNAVAILABLE
_PREVIOUS_HOSTS = pb.RetryPolicy.RetryHostPredicate(
    name="envoy.retry_host_predicates.previous_hosts",
    typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
)
_REDIRECTS = {
    301: pb.RedirectAction.MOVED_PERMANENTLY,
    302: pb.RedirectAction.FOUND,
    303: pb.RedirectAction.SEE_OTHER,
    307: pb.RedirectAction.TEMPORARY_REDIRECT,
    308: pb.RedirectAction.PERMANENT_REDIRECT,
}


def write_action(name: str, route: Route, result: pb.Route, contents: Contents, grpc: bool) -> None:
    """Write what happens to the requests of a route. `grpc` is true if all its targets use gRPC."""
    if route.redirect is not None:
        result.redirect.CopyFrom(_redirect(route.redirect, route.match))
    elif route.respond is not None:
        _respond(route.respond, result)
    elif route.composed is not None:
        compositions.write_action(name, route, result, contents)
    elif route.targets:
        _forward(route, result.route, grpc)
    else:  # a policy responds before this
        result.direct_response.status = 404


def shares(route: Route, result: pb.Route) -> Iterator[pb.Route]:
    """Yield the routes of the backends of a translated route, in the order in which Envoy tries them.

    There is one route for all backends, unless Envoy's weighted clusters cannot express what one of them changes. Then
    each backend is a route of its own, for a share of the requests: Envoy draws one number for each request, and
    compares it with the upper end of the share of each route.
    """
    backends = route.backends
    if not isinstance(route.split, tuple) or _are_weighted(route, backends):
        yield result
        return
    total, end = sum(one.weight for one in backends), 0
    for number, backend in enumerate(backends, 1):
        own = pb.Route()
        own.CopyFrom(result)
        end += backend.weight
        if number < len(backends):
            share = own.match.runtime_fraction.default_value
            share.numerator, share.denominator = round(end * 1_000_000 / total), _MILLION
        _write_backend(route, backend, own)
        yield own


def _are_weighted(route: Route, backends: tuple[Backend, ...]) -> bool:
    """True if weighted clusters can express a split.

    Envoy applies the changes of headers of a weighted cluster before those of the route, which would then win.
    """
    changed = (one.request_headers is not None or one.response_headers is not None for one in backends)
    both = (route.request_headers is not None or route.response_headers is not None) and any(changed)
    return not both and all(one.same_action for one in backends)


def _write_backend(route: Route, backend: Backend, own: pb.Route) -> None:
    """Write the action of one backend in place of the route's."""
    if backend.redirect is not None:
        own.redirect.CopyFrom(_redirect(backend.redirect, route.match))
    elif backend.respond is not None:
        own.ClearField("route")
        _respond(backend.respond, own)
    else:
        own.route.cluster = names.cluster(backend.upstream or "")
        if backend.rewrite is not None:
            for field in ("prefix_rewrite", "regex_rewrite", "host_rewrite_literal", "auto_host_rewrite"):
                own.route.ClearField(field)
            _rewrite(backend.rewrite, route.match, own.route)
        own.route.request_mirror_policies.extend(map(_mirror, backend.mirrors))
    for part in _header_changes(backend):
        own.request_headers_to_add.extend(part.request_headers)
        own.request_headers_to_remove.extend(part.request_headers_to_remove)
        own.response_headers_to_add.extend(part.response_headers)
        own.response_headers_to_remove.extend(part.response_headers_to_remove)


def _header_changes(backend: Backend) -> Iterator[RoutePart]:
    if backend.request_headers is not None:
        yield request_changes(backend.request_headers)
    if backend.response_headers is not None:
        yield response_changes(backend.response_headers)


def _weighted(backend: Backend, weighted: pb.WeightedCluster.ClusterWeight) -> None:
    """Write one backend as a weighted cluster."""
    weighted.name, weighted.weight.value = names.cluster(backend.upstream or ""), backend.weight
    if backend.rewrite is not None and backend.rewrite.host is not None:
        weighted.host_rewrite_literal = backend.rewrite.host
    for part in _header_changes(backend):
        weighted.request_headers_to_add.extend(part.request_headers)
        weighted.request_headers_to_remove.extend(part.request_headers_to_remove)
        weighted.response_headers_to_add.extend(part.response_headers)
        weighted.response_headers_to_remove.extend(part.response_headers_to_remove)


def _mirror(mirror: Mirror) -> pb.RouteAction.RequestMirrorPolicy:
    policy = pb.RouteAction.RequestMirrorPolicy(cluster=names.cluster(mirror.upstream))
    fraction = policy.runtime_fraction.default_value
    fraction.numerator, fraction.denominator = round(mirror.percent * 10_000), _MILLION
    return policy


def _rewrite(rewrite: Rewrite, match: PathMatch, action: pb.RouteAction) -> None:
    if rewrite.host == "auto":
        action.auto_host_rewrite.value = True
    elif rewrite.host is not None:
        action.host_rewrite_literal = rewrite.host
    action.append_x_forwarded_host = rewrite.host is not None
    if rewrite.regex is not None:
        action.regex_rewrite.pattern.regex = rewrite.regex
        action.regex_rewrite.substitution = rewrite.substitution or ""
    elif rewrite.path is not None and not _rewrite_prefix(match, rewrite.path, action):
        _rewrite_path(match, rewrite.path, action.regex_rewrite)


def _rewrite_prefix(match: PathMatch, target: str, action: pb.RouteAction) -> bool:
    """Replace the prefix, if that is enough: a regular expression makes each request cost a fifth more."""
    put = target[:-2]
    if match.kind != "prefix" or match.value.endswith("/") or not target.endswith("/*") or not put:
        return False
    if match.spelled:
        return False
    action.prefix_rewrite = put if match.value else f"{put}/"
    return True


def _rewrite_path(match: PathMatch, target: str, rewrite: regex_pb2.RegexMatchAndSubstitute) -> None:
    if match.kind == "prefix" and target.endswith("/*"):
        base = escapes.spellings(match.value.rstrip("/"))
        pattern, substitution = f"^{base}(/.*)?$", f"{_literal(target[:-2])}\\1"
        if target == "/*":
            pattern, substitution = f"^{base}/*(.*)$", "/\\1"
    else:
        pattern = f"^(?:{match.regex})$" if match.names else "^.*$"
        positions = match.positions
        parts = re.split(r"\{(\w+)\}", target)
        substitution = "".join(
            f"\\{positions[part]}" if number % 2 and part in positions else _literal(part)
            for number, part in enumerate(parts)
        )
    rewrite.pattern.regex = pattern
    rewrite.substitution = substitution


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\")


def _retry(retry: Retry, policy: pb.RetryPolicy) -> None:
    statuses = sorted(int(one) for one in retry.on if one.isdigit())
    conditions = {one for one in retry.on if not one.isdigit()}
    policy.retry_on = ",".join(sorted(conditions | ({"retriable-status-codes"} if statuses else set())))
    policy.num_retries.value = retry.attempts
    policy.retriable_status_codes.extend(statuses)
    fill(policy.retry_back_off.base_interval, retry.backoff)
    fill(policy.retry_back_off.max_interval, retry.max_backoff)
    if retry.per_try_timeout is not None:
        fill(policy.per_try_timeout, retry.per_try_timeout)
    if retry.avoid_failed_hosts:
        policy.retry_host_predicate.append(_PREVIOUS_HOSTS)
        policy.host_selection_retry_max_attempts = 5


def _hash(affinity: SessionAffinity) -> pb.RouteAction.HashPolicy:
    policy = pb.RouteAction.HashPolicy()
    if affinity.header is not None:
        policy.header.header_name = affinity.header.lower()
    elif affinity.query is not None:
        policy.query_parameter.name = affinity.query
    else:
        policy.connection_properties.source_ip = True
    return policy


def _forward(route: Route, action: pb.RouteAction, grpc: bool) -> None:
    """Write the action that forwards to upstreams. `grpc` is true if all of them use gRPC."""
    limit = route.time_limit(grpc)
    if grpc:  # a timeout that also ends streams; 0: the client's own
        fill(action.timeout, NEVER)
        fill(action.max_stream_duration.max_stream_duration, limit)
        fill(action.max_stream_duration.grpc_timeout_header_max, limit)
    else:
        fill(action.timeout, limit)
    action.cluster_not_found_response_code = _SERVICE_UNAVAILABLE
    if route.upstream is not None:
        action.cluster = names.cluster(route.upstream)
    else:
        for backend in route.backends:
            _weighted(backend, action.weighted_clusters.clusters.add())
    if route.priority == "high":
        action.priority = base_pb2.HIGH
    if route.rewrite is not None:
        _rewrite(route.rewrite, route.match, action)
    if route.idle_timeout is not None:
        fill(action.idle_timeout, route.idle_timeout)
    if route.retry is not None:
        _retry(route.retry, action.retry_policy)
    if route.hedge is not None:
        action.hedge_policy.hedge_on_per_try_timeout = route.hedge.on_per_try_timeout
    if route.session_affinity is not None and route.session_affinity.cookie is None:
        action.hash_policy.append(_hash(route.session_affinity))
    action.request_mirror_policies.extend(map(_mirror, route.mirrors))


def _redirect(redirect: Redirect, match: PathMatch) -> pb.RedirectAction:
    action = pb.RedirectAction(
        response_code=_REDIRECTS[redirect.status],
        strip_query=redirect.strip_query,
    )
    target = re.fullmatch(r"(?:(https?)://([^/:]+|\[[^]]+\])(?::(\d+))?)?(/.*)?", redirect.to or "")
    scheme, host, port, path = target.groups() if target else (None, None, None, None)
    scheme, host, path = redirect.scheme or scheme, redirect.host or host, redirect.path or path
    number = redirect.port or (int(port) if port else 0)
    if scheme is not None:
        action.scheme_redirect = scheme
    if host is not None:
        action.host_redirect = host
    if number:
        action.port_redirect = number
    if path is not None and (path.endswith("/*") or "{" in path):
        _rewrite_path(match, path, action.regex_rewrite)
    elif path is not None:
        action.path_redirect = path
    return action


def _respond(respond: Respond, result: pb.Route) -> None:
    result.direct_response.status = respond.status
    body, kind = respond.body, respond.content_type
    if body is not None and not isinstance(body, str):
        body, kind = (
            json.dumps(dict(body), separators=(",", ":"), ensure_ascii=False),
            kind or "application/json",
        )
    if body:
        result.direct_response.body.inline_string = body
        result.response_headers_to_add.append(header("content-type", kind or "text/plain; charset=utf-8"))
    if respond.status == 304:  # Envoy adds a location to every 3xx
        result.response_headers_to_remove.append("location")
    for name, value in sorted(respond.headers.items()):
        result.response_headers_to_add.append(header(name, value.replace("%", "%%")))
