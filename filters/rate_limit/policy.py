"""rate_limit, quota, concurrency, plan_limits and limit_headers, by Envoy's rate limit filter and the policy server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from envoy.config.core.v3 import config_source_pb2
from envoy.config.ratelimit.v3 import rls_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2
from google.protobuf import duration_pb2
from google.protobuf.message import Message

from filters.language import Mistake
from filters.language.options import OFF
from filters.model.limits import ConcurrencyLimit, Limit, Quota, repeated_windows
from filters.model.methods import identified
from filters.policy import NOTHING, Context, HttpFilter, Levels, Policy, RoutePart, Stage
from filters.policy_server import grpc_service
from filters.rate_limit import client_headers, one_call
from filters.rate_limit.effective import EffectiveLimits, Styles, effective_limits, local_places, places
from filters.rate_limit.envoy import descriptors, graphql_cost, leases, local
from filters.rate_limit.limit_rules import LIMITS, as_tuple, limits_of_plan, plan_rule, shared
from filters.reasons import Reason, details
from filters.rules import Rule

FILTER = "xds.rate_limit"
STRICT_FILTER = "xds.rate_limit.strict"
"""The same filter, but it answers 503 without a decision. Envoy's `failure_mode_deny` applies to a whole filter."""
TIMEOUT = duration_pb2.Duration()
TIMEOUT.FromTimedelta(one_call.TIME)


def _entries(found: EffectiveLimits, context: Context) -> Iterator[descriptors.Action]:
    yield descriptors.word(descriptors.ROUTE, context.route)
    for name in found.rules:
        yield descriptors.word(descriptors.RULE, name)
    if found.plans:
        yield descriptors.word(descriptors.PLANS, "true")
    for style in _styles(context):
        yield descriptors.word(descriptors.STYLE, style)
    yield from descriptors.who()
    for name in found.inputs:
        yield from descriptors.inputs(name)
    # Last, because the policy server works out once what calls ask that differ only in it.
    yield descriptors.request_id()
    if found.slots:
        yield from descriptors.checked_lease() if one_call.decides(context) else descriptors.lease()


def _styles(context: Context) -> Styles:
    styles: Styles = context.effective.get("limit_headers", client_headers.STYLES)
    return styles


def part(context: Context) -> RoutePart:
    """The configuration of the route of `context` for all of its limits together."""
    found, own = effective_limits(context), local_places(context)
    asks = context.forwards and bool(found.written)
    if not asks and not own:
        return NOTHING
    configs: dict[str, Message] = {}
    if own:
        styles = () if asks else _styles(context)
        configs.update(local.on_route(context.route, own, styles, identified=identified(context.effective)))
    if asks:
        configs.update(_counted_by_policy_server(found, context))
    return RoutePart(filter_configs=configs, response_headers_to_remove=client_headers.HEADERS)


def _counted_by_policy_server(found: EffectiveLimits, context: Context) -> Iterator[tuple[str, Message]]:
    """The limits of the policy server: before the request, unless a Check decides them, and at its end if needed."""
    entries = tuple(_entries(found, context))
    limits = []
    if not one_call.decides(context):
        asked: tuple[descriptors.Action, ...] = ()
        if leases.possible(found):
            asked = (leases.asked(),)
            yield leases.FILTER, leases.on_route(context.route, found, _styles(context))
        limits = [route_components_pb2.RateLimit(actions=(*asked, *entries))]
    if found.graphql:
        yield graphql_cost.FILTER, graphql_cost.on_route(context.graphql_costs.get(context.route, 0))
    if found.everything:
        limits.append(
            route_components_pb2.RateLimit(
                actions=[*entries, *descriptors.ended(graphql=found.graphql)], apply_on_stream_done=True
            )
        )
    if limits:
        config = rate_limit_pb2.RateLimitPerRoute(rate_limits=limits)
        yield STRICT_FILTER if found.strict else FILTER, config


def _filter(name: str, *, strict: bool) -> HttpFilter:
    service = rls_pb2.RateLimitServiceConfig(
        transport_api_version=config_source_pb2.V3, grpc_service=grpc_service()
    )
    config = rate_limit_pb2.RateLimit(
        domain=descriptors.DOMAIN,
        rate_limit_service=service,
        timeout=TIMEOUT,
        failure_mode_deny=strict,
        disable_x_envoy_ratelimited_header=True,
    )
    config.status_on_error.code = 503  # type: ignore[assignment] # Service Unavailable
    return HttpFilter(name=name, config=config)


def _rejected(name: str, title: str) -> Reason:
    when = f"{details(descriptors.REJECTED)} && response.headers['x-gateway-reason'] == '{name}'"
    return Reason(name=name, title=title, status=429, when=when, own_body=True)


def _check_level(settings: Levels) -> Iterator[Mistake]:
    written = settings.places[-1][1]
    if written == ():
        yield Mistake("an empty list limits nothing", "write a limit, or 'off'", value=[])
    for mistake in repeated_windows("", written):
        yield Mistake(mistake.message, mistake.remedy, path=mistake.path[1:])


class _Cumulative(Policy[Levels]):
    """Limits of several levels, which all apply. `PlanLimits` emits Envoy's configuration for them."""

    stage = Stage.LIMIT
    cumulative = True
    enforced_by = "policy server, called by Envoy"

    def on_route(self, settings: Levels, context: Context) -> RoutePart:
        return NOTHING

    def for_local_answers(self, settings: Levels) -> Levels | None:
        """None, because Envoy calls the policy server only for requests to an upstream."""
        return None

    def rules(self, used: Iterable[Levels], context: Context) -> Iterator[Rule]:
        found = {name: written for settings in used for name, written in places(self.key, settings)}
        for name, written in sorted(found.items()):
            yield Rule(type=LIMITS, name=name, value=written)


class RateLimit(_Cumulative):
    """Requests in windows."""

    key = "rate_limit"
    settings = Limit | tuple[Limit, ...]
    remedy_if_local = "remove it, or write scope: local"
    rule_types = (LIMITS,)
    reasons = (
        _rejected("rate_limited", "Too many requests"),
        _rejected("quota_exceeded", "The quota is used up"),
        _rejected("concurrency_exceeded", "Too many concurrent requests"),
        Reason(
            name="rate_limit_unavailable",
            title="The rate limit could not be checked",
            status=503,
            when=details("rate_limiter_error"),
        ),
    )

    def http_filters(self, used: Iterable[Levels], context: Context) -> tuple[HttpFilter, ...]:
        of_plans = [one for plan in context.plans.values() for one in limits_of_plan(plan)]
        of_routes = [one for some in used for _, written in some.places for one in as_tuple(written)]
        return tuple(graphql_cost.http_filters((*of_plans, *of_routes)))

    def check(self, settings: Levels, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of the nearest level."""
        yield from _check_level(settings)

    def for_local_answers(self, settings: Any) -> Any:
        """The local limits, because Envoy counts them on all routes."""
        if isinstance(settings, Levels):
            kept = ((place, self.for_local_answers(written)) for place, written in settings.places)
            levels = tuple((place, written) for place, written in kept if written)
            return Levels(levels) if levels else None
        own = tuple(limit for limit in as_tuple(settings) if not shared(limit))
        return own if isinstance(settings, tuple) else (*own, None)[0]

    def explain(self, settings: Levels, context: Context) -> str:
        """The process that counts."""
        asked = {shared(one) for _, written in settings.places for one in as_tuple(written)}
        return " and ".join(
            name for name, kind in (("Envoy", False), (self.enforced_by, True)) if kind in asked
        )


class QuotaLimit(_Cumulative):
    """Bytes in windows, counted at the end of a response and checked before the next request."""

    key = "quota"
    settings = Quota | tuple[Quota, ...]

    def check(self, settings: Levels, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of the nearest level."""
        yield from _check_level(settings)


class Concurrent(_Cumulative):
    """Requests at the same time."""

    key = "concurrency"
    settings = ConcurrencyLimit


class PlanLimits(Policy[Any]):
    """The limits of consumers' plans, which routes have unless they say `off`.

    It also emits the filter for all limits.
    """

    key = "plan_limits"
    stage = Stage.LIMIT
    settings = bool
    on_by_default = True
    enforced_by = "policy server, called by Envoy"

    def http_filters(self, used: Iterable[Any], context: Context) -> tuple[HttpFilter, ...]:
        return (
            *local.http_filters(),
            leases.http_filter(),
            _filter(FILTER, strict=False),
            _filter(STRICT_FILTER, strict=True),
        )

    def on_route(self, settings: Any, context: Context) -> RoutePart:
        return part(context)

    def off_route(self, context: Context) -> RoutePart:
        return part(context)

    def rules(self, used: Iterable[Any], context: Context) -> Iterator[Rule]:
        for name, plan in sorted(context.plans.items()):
            if any(shared(one) for one in limits_of_plan(plan)):
                yield Rule(type=LIMITS, name=plan_rule(name), value=plan)

    def explain(self, settings: Any, context: Context) -> str:
        return "not applied" if settings is OFF else self.enforced_by


class LimitHeaders(Policy[Styles]):
    """The styles of headers about limits. Without this policy, all styles."""

    key = "limit_headers"
    stage = Stage.LIMIT
    settings = Styles
    enforced_by = "policy server"

    def on_route(self, settings: Styles, context: Context) -> RoutePart:
        return NOTHING
