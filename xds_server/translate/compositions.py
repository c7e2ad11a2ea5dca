"""Routes that the composer answers: its rules, the routes to it, and the listener through which it calls upstreams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import address_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.original_ip_detection.custom_header.v3 import custom_header_pb2
from envoy.extensions.request_id.uuid.v3 import uuid_pb2

from filters import composer_reasons
from filters.error_overrides import ErrorOverride
from filters.log_fields import VERSION_METADATA
from filters.model import claims
from filters.model.identity import NAMESPACE
from filters.policy import HttpFilter, header
from filters.policy_server import internal_cluster
from filters.reasons import REASON_HEADER
from filters.rules import Rule
from filters.transform import paths
from filters.transform.plans import Change, Plan, plan
from filters.transform.sources import Source, segments
from xds_server.gateway.caller_uses import OF_CALLER
from xds_server.gateway.graphql_schemas import Contents, SdlText, persisted_texts, sdl_texts
from xds_server.gateway.model import call_values
from xds_server.gateway.model.aggregate import SAFE, Aggregate, AggregatedCall
from xds_server.gateway.model.call_values import CALL, Constant, FromSource, ListOf, ObjectOf, Template
from xds_server.gateway.model.graphql import Graphql
from xds_server.gateway.model.routes import Retry, Route
from xds_server.gateway.model.telemetry import Tracing
from xds_server.gateway.model.upstreams import parse_address
from xds_server.translate import composer_entry as entry
from xds_server.translate import endpoints, local_replies
from xds_server.translate.protobuf import boolean, duration, fill, packed, uint32
from xds_server.translate.tracing import tracing

HCM = "envoy.filters.network.http_connection_manager"
FILTER = "xds.composer"
"""The name of `http_filter`. It runs on the routes that the composer answers."""
MODE = 0o600
"""The mode of the Unix socket for calls: only the user of Envoy may connect."""
_NEVER = timedelta(0)
_HOUR = timedelta(hours=1)
_RETRIES = 16
"""Attempts to connect to the composer again, while it is started anew: some seconds, because Python needs one to start."""


def http_filter(*, with_version: bool) -> HttpFilter:
    """Return the filter that gives the reasons of the composer's errors the name of the gateway's own reasons.

    If it is `with_version`, it tells the composer the version of the gateway, for its problems.
    """
    config = header_mutation_pb2.HeaderMutation()
    config.mutations.request_mutations.add(remove=entry.VERSION_HEADER)
    if with_version:
        version = header(entry.VERSION_HEADER, f"%DYNAMIC_METADATA({VERSION_METADATA})%")
        config.mutations.request_mutations.add(append=version)
    return HttpFilter(name=FILTER, config=config)


def _reasons() -> header_mutation_pb2.HeaderMutationPerRoute:
    mutations = header_mutation_pb2.Mutations()
    mutations.response_mutations.add(append=header(REASON_HEADER, f"%RESP({entry.REASON_HEADER})%"))
    mutations.response_mutations.add(remove=entry.REASON_HEADER)
    return header_mutation_pb2.HeaderMutationPerRoute(mutations=mutations)


_REASONS = _reasons()


def rules(
    routes: Mapping[str, Route], errors: Mapping[str, ErrorOverride], contents: Contents
) -> Iterator[Rule]:
    """Yield the rules of all routes that the composer answers. `errors` are the overrides of the gateway's own responses."""
    overrides = {
        name: {one.name: value for one in fields(override) if (value := getattr(override, one.name))}
        for name, override in sorted(errors.items())
        if name in composer_reasons.BY_NAME
    }
    for name, route in sorted(routes.items()):
        if route.composed is not None:
            content = entry.as_json({**_content(route, contents)[1], "overrides": overrides})
            value = entry.Composition("graphql" if route.aggregate is None else "aggregate", content)
            yield Rule(type=entry.COMPOSITION, name=rule_name(name, route, contents), value=value)


def rule_name(name: str, route: Route, contents: Contents) -> str:
    """Return the name of the rule of a route: it changes with its content, so that two versions can be served at once."""
    return f"{name}/{_content(route, contents)[0]}"


def write_action(name: str, route: Route, result: pb.Route, contents: Contents) -> None:
    """Write the route to the composer, with headers that say what it shall do and who the caller is."""
    action = result.route
    action.cluster = internal_cluster(entry.SERVICE)
    action.cluster_not_found_response_code = pb.RouteAction.SERVICE_UNAVAILABLE
    limit = route.time_limit(grpc=False)
    # the composer answers when the time is up, and Envoy only if it does not
    fill(action.timeout, limit + _grace(limit) if limit else _NEVER)
    action.retry_policy.retry_on = "connect-failure,refused-stream"
    action.retry_policy.num_retries.value = _RETRIES
    fill(action.retry_policy.retry_back_off.base_interval, timedelta(milliseconds=50))
    fill(action.retry_policy.retry_back_off.max_interval, timedelta(milliseconds=500))
    # a schema may allow each field to some callers
    kinds = OF_CALLER if route.aggregate is None else {one.kind for _, one in route.aggregate.sources()}
    trusted = {entry.COMPOSITION_HEADER: rule_name(name, route, contents).replace("%", "%%")}
    if kinds & OF_CALLER:
        trusted[entry.CALLER_HEADER] = f"%DYNAMIC_METADATA({NAMESPACE})%"
    if "ip" in kinds:
        trusted[entry.CLIENT_ADDRESS_HEADER] = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    result.typed_per_filter_config[FILTER].CopyFrom(packed(_REASONS))
    result.request_headers_to_remove.extend(entry.TRUSTED_HEADERS)
    result.request_headers_to_add.extend(header(key, value) for key, value in sorted(trusted.items()))


def _grace(limit: timedelta) -> timedelta:
    return max(timedelta(milliseconds=250), limit / 10)


def _content(route: Route, contents: Contents) -> tuple[str, Mapping[str, Any]]:
    """Return a hash of the rule of a route, and its content without what all routes share."""
    limit = route.time_limit(grpc=False).total_seconds()
    if route.graphql is not None:
        texts = sdl_texts(route.graphql, contents)
        return _hashed_graphql(
            route.graphql, texts, persisted_texts(route.graphql, contents), limit, route.retry
        )
    assert route.aggregate is not None
    return _hashed(_Key(route.aggregate), route.match.named_regex, limit, route.retry)


class _Key:
    """An aggregate as a key of a cache: by identity, because it has mappings."""

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate

    def __hash__(self) -> int:
        return id(self.aggregate)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.aggregate is self.aggregate


@lru_cache(maxsize=4096)
def _hashed(key: _Key, path_regex: str, limit: float, retry: Retry | None) -> tuple[str, Mapping[str, Any]]:
    aggregate = key.aggregate
    content = {
        "calls": [
            _call(name, call, aggregate.after[name], path_regex) for name, call in aggregate.calls.items()
        ],
        "response": None if aggregate.template is None else _template(aggregate.template, path_regex),
        "errors": aggregate.errors == "body",
        "max_answer": int(aggregate.max_answer),
        "timeout": limit or None,
        "retry": _retry(retry) if retry is not None else {},
    }
    return hashlib.sha256(entry.as_json(content)).hexdigest()[:16], content


@lru_cache(maxsize=256)
def _hashed_graphql(
    graphql: Graphql,
    texts: tuple[SdlText, ...],
    persisted: tuple[str, ...],
    limit: float,
    retry: Retry | None,
) -> tuple[str, Mapping[str, Any]]:
    content = {
        "documents": [list(one) for one in texts],
        "limits": {one.name: getattr(graphql.limits, one.name) for one in fields(graphql.limits)},
        "introspection": graphql.introspection,
        "suggestions": graphql.suggestions,
        "persisted": list(persisted),
        "only_persisted": graphql.persisted is not None and graphql.persisted.only,
        "max_answer": int(graphql.max_answer),
        "timeout": limit or None,
        "retry": _retry(retry) if retry is not None else {},
    }
    return hashlib.sha256(entry.as_json(content)).hexdigest()[:16], content


def _retry(retry: Retry) -> dict[str, str]:
    """Return the headers by which Envoy repeats a call (router filter of Envoy)."""
    statuses = [one for one in retry.on if one.isdigit()]
    conditions = {one for one in retry.on if not one.isdigit()}
    conditions |= {"retriable-status-codes"} if statuses else set()
    found = {"x-envoy-retry-on": ",".join(sorted(conditions)), "x-envoy-max-retries": str(retry.attempts)}
    if statuses:
        found["x-envoy-retriable-status-codes"] = ",".join(statuses)
    if retry.per_try_timeout is not None:
        milliseconds = max(1, retry.per_try_timeout // timedelta(milliseconds=1))
        found["x-envoy-upstream-rq-per-try-timeout-ms"] = str(milliseconds)
    return found


def _call(name: str, call: AggregatedCall, after: tuple[str, ...], path_regex: str) -> dict[str, Any]:
    body = call.template()
    return {
        "name": name,
        "upstream": call.upstream,
        "method": call.verb,
        "safe": call.verb in SAFE,
        "after": list(after),
        "path": [part if isinstance(part, str) else _source(part, path_regex) for part in call.text],
        "query": [[key, _template(one, path_regex)] for key, one in call.settings("query").items()],
        "headers": [
            [key.lower(), _template(one, path_regex)] for key, one in call.settings("headers").items()
        ],
        "body": None if body is None else _template(body, path_regex),
        "target": _steps(paths.names(call.target)) if call.target is not None else [],
        "shape": _shape(call),
        "group": call.group,
        "optional": call.optional,
        "timeout": call.timeout.total_seconds() if call.timeout is not None else None,
    }


def _shape(call: AggregatedCall) -> Plan:
    """Return the plan for the fields of an answer, which is empty if it stays as it is."""
    changes = [Change(paths.steps(path), "keep") for path in call.only]
    changes += [Change(paths.steps(path), "rename", name) for path, name in call.rename.items()]
    return plan(changes)


def _template(one: Template, path_regex: str) -> dict[str, Any]:
    """Return a template as the composer reads it: a mapping with one of `value`, `from`, `object` and `list`."""
    match one:
        case Constant():
            return {"value": one.value}
        case FromSource():
            found: dict[str, Any] = {"from": _source(one.source, path_regex)}
            return {**found, "default": one.default} if one.has_default else found
        case ObjectOf():
            members = [[name, _template(value, path_regex)] for name, value in one.members.items()]
            return {"object": members}
        case ListOf():
            return {"list": [_template(value, path_regex) for value in one.elements]}


def _source(one: Source, path_regex: str) -> dict[str, Any]:
    if one.kind == CALL:
        name, steps = call_values.called(one)
        return {"kind": "call", "call": name, "steps": _steps(steps)}
    if one.kind == "body":
        return {"kind": "body", "steps": _steps(paths.names(one.name))}
    if one.kind == "claim":
        return {"kind": "claim", "paths": [list(path) for path in claims.paths(one.name)]}
    if one.kind == "path":
        return {"kind": "path", "segment": segments(path_regex)[one.name]}
    return {"kind": one.kind, "name": one.name} if one.name else {"kind": one.kind}


def _steps(steps: Iterable[str]) -> list[str | None]:
    """Return steps as the composer reads them: names of members, and null for the elements of an array."""
    return [None if one == paths.ELEMENTS else paths.name_of(one) for one in steps]


def calls_listener(address: str, traces: Tracing | None) -> listener_pb2.Listener:
    """Return the listener through which the composer calls upstreams. A header of the call names the upstream."""
    return listener_pb2.Listener(
        name=entry.CALLS,
        address=calls_address(address),
        filter_chains=[listener_components_pb2.FilterChain(filters=[_manager(traces)])],
    )


def calls_address(address: str) -> address_pb2.Address:
    """Return the address of the listener. A Unix socket is for the user of Envoy alone."""
    result = endpoints.address(parse_address(address))
    if result.HasField("pipe"):
        result.pipe.mode = MODE
    return result


def _manager(traces: Tracing | None) -> listener_components_pb2.Filter:
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix="composer_calls",
        http_filters=[
            hcm_pb2.HttpFilter(
                name="envoy.filters.http.router",
                typed_config=packed(router_pb2.Router(suppress_envoy_headers=True)),
            )
        ],
        use_remote_address=boolean(False),
        skip_xff_append=True,
        preserve_external_request_id=True,
        generate_request_id=boolean(False),
        request_id_extension=hcm_pb2.RequestIDExtension(
            typed_config=packed(uuid_pb2.UuidRequestIdConfig(pack_trace_reason=boolean(False)))
        ),
        original_ip_detection_extensions=[_trusted()],
        internal_address_config=hcm_pb2.HttpConnectionManager.InternalAddressConfig(
            cidr_ranges=[address_pb2.CidrRange(address_prefix=entry.CALL_VALUE, prefix_len=uint32(32))]
        ),
        server_header_transformation=hcm_pb2.HttpConnectionManager.PASS_THROUGH,
        stream_idle_timeout=duration(_NEVER),
        local_reply_config=local_replies.local_reply_config({}),
        route_config=_routes(),
    )
    manager.common_http_protocol_options.idle_timeout.CopyFrom(duration(_HOUR))
    fill(
        manager.delayed_close_timeout, _NEVER
    )  # an answer that is cut off ends at once, and not a second later
    if traces is not None:
        manager.tracing.CopyFrom(tracing(traces))
    return listener_components_pb2.Filter(name=HCM, typed_config=packed(manager))


def _trusted() -> extension_pb2.TypedExtensionConfig:
    """Return the detection of callers for which each call comes from a trusted address.

    Envoy removes headers with a time limit and retries from requests of others, and would look for them in X-Forwarded-For.
    """
    config = custom_header_pb2.CustomHeaderConfig(
        header_name=entry.CALL_HEADER, allow_extension_to_set_address_as_trusted=True
    )
    name = "envoy.http.original_ip_detection.custom_header"
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))


def _routes() -> route_pb2.RouteConfiguration:
    """Return the routes of calls: one for all upstreams, whose time limit and retries are in headers of the call."""
    route = pb.Route(name=entry.CALLS, match=pb.RouteMatch(prefix="/"))
    route.route.cluster_header = entry.UPSTREAM_HEADER
    route.route.cluster_not_found_response_code = pb.RouteAction.SERVICE_UNAVAILABLE
    fill(route.route.timeout, _NEVER)
    route.request_headers_to_remove.extend((entry.CALL_HEADER, entry.UPSTREAM_HEADER, "x-envoy-internal"))
    route.response_headers_to_remove.append(REASON_HEADER)
    host = pb.VirtualHost(name=entry.CALLS, domains=["*"], routes=[route])
    return route_pb2.RouteConfiguration(name=entry.CALLS, virtual_hosts=[host])
