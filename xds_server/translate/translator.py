"""Translation of a gateway to a snapshot. Unchanged parts are neither translated nor serialized again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import is_
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import extension_pb2

from filters.error_overrides import ErrorOverride
from filters.language import Mistake, Path, Problem
from filters.language.problems import short_repr
from filters.mock import names as mocks
from filters.mock.names import MOCK
from filters.pipeline import POLICIES
from filters.policy import Context, HttpFilter
from filters.policy_server import SERVICE
from filters.rules import Rule
from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    SECRET,
    ResourceType,
    custom,
)
from xds_server.gateway.graphql_schemas import Contents
from xds_server.gateway.model.gateway import Gateway, Sections
from xds_server.gateway.model.hosts import ANY_HOST
from xds_server.gateway.model.ports import Port, ports
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.model.routes import Route
from xds_server.gateway.model.telemetry import Usage
from xds_server.gateway.model.upstreams import Upstream
from xds_server.translate import (
    adaptive_concurrency,
    clusters,
    composer_entry,
    compositions,
    endpoints,
    gateway_version,
    geoip,
    listeners,
    names,
    routes,
    secrets,
    usage_entry,
    usage_log,
    virtual_hosts,
)
from xds_server.translate.access_log import logs_of
from xds_server.translate.composer_entry import COMPOSITION
from xds_server.translate.protobuf import packed
from xds_server.translate.route_tables import RouteTables
from xds_server.translate.route_trees import DEFAULT, Shape

RULE_TYPES: Mapping[str, ResourceType] = {
    one.name: custom(one.name, one.full_name)
    for one in (*(one for policy in POLICIES for one in policy.rule_types), MOCK, COMPOSITION)
}
"""The types that policy servers request. Every snapshot has all of them, so that they know when they have all rules."""

_Logs = tuple[accesslog_pb2.AccessLog, ...]

_NAMED = 5
"""The number of routes that a warning names."""


class Untranslatable(Exception):  # noqa: N818 - carries the user's mistakes, as data
    """Raw Envoy fields that Envoy's schema does not have."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class TranslationCache:
    """Results by name, kept while every input is the same object. Frozen values make identity sufficient."""

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[tuple[Any, ...], Any]] = {}
        self._next: dict[Any, tuple[tuple[Any, ...], Any]] = {}

    def get(self, name: Any, inputs: tuple[Any, ...], make: Callable[..., Any], *arguments: Any) -> Any:
        """Return the cached result if the inputs are the same, or else that of `make`. Marks it as used."""
        known = self._kept.get(name)
        if known is None or len(known[0]) != len(inputs) or not all(map(is_, known[0], inputs)):
            known = (inputs, make(*arguments))
        self._next[name] = known
        return known[1]

    def finish(self) -> None:
        """Forget results that were not used since the last call."""
        self._kept, self._next = self._next, {}


class Translator:
    """Translates successive gateways. Results depend on the gateway alone, never on the order of calls.

    `internal_services` are the addresses at which Envoys reach our own services, by name: ``HOST:PORT`` or
    ``unix:/PATH``. `composer_calls` is the address at which Envoys take calls of the composer. `shape` says which hosts
    get a tree of routes.
    """

    def __init__(
        self,
        internal_services: Mapping[str, str] = clusters.INTERNAL_SERVICES,
        *,
        composer_calls: str = composer_entry.DEFAULT_CALLS,
        shape: Shape = DEFAULT,
    ) -> None:
        self._internal_services, self._shape = internal_services, shape
        self._composer_calls = composer_calls
        self._problems: list[Problem] = []
        self._surroundings: tuple[Any, ...] = ()
        self._grpc: frozenset[str] = frozenset()
        """The upstreams that use gRPC."""
        self._limited: frozenset[str] = frozenset()
        """The upstreams with `adaptive_concurrency`."""
        self._ports: tuple[Port, ...] = ()
        self._forget()

    def _forget(self) -> None:
        """Keep nothing for the next gateway."""
        self._tables = RouteTables(self._translated, self._shape)
        self._memo, self._each_upstream, self._each_rule, self._each_port = (
            TranslationCache() for _ in range(4)
        )
        self._common: listeners.Common | None = None
        self._last: tuple[Mapping[ResourceType, list[Resource]], Snapshot] = ({}, EMPTY)
        """The resources of the last gateway, by type in lists and as a snapshot."""

    def translate(self, gateway: Gateway, commit: str = "") -> Snapshot:
        """Return the snapshot of a gateway. Raises Untranslatable with every error in raw Envoy fields.

        `commit` is the id of the commit that it is from, which access logs and problems may show.
        """
        self._problems = []
        try:
            resources = self._resources(gateway)
        except BaseException:
            self._forget()
            raise
        if self._problems:
            self._forget()
            raise Untranslatable(tuple(self._problems))
        before, snapshot = self._last
        changed = {type_: some for type_, some in resources.items() if before.get(type_) is not some}
        self._last = (resources, snapshot.updated(changed))
        return gateway_version.written(self._last[1], commit)

    def _resources(self, gateway: Gateway) -> dict[ResourceType, list[Resource]]:
        """Return all resources by type. The list of a type is the same object as before if no input changed."""
        self._notice(gateway)
        context, sections, keep = gateway.context, gateway.sections, self._memo.get
        used = _used(gateway)
        settings = (context, *chain.from_iterable((key, *values) for key, values in used.items()))
        filters, logs, rules = keep("policies", settings, self._of_policies, used, context)
        filters = keep("telemetry", (filters, sections.telemetry), _with_telemetry, filters, sections)
        filters = keep("geoip", (filters, context.geoip), geoip.with_geoip, filters, context.geoip)
        upstreams = sections.upstreams
        filters = keep("limits", (filters, upstreams), adaptive_concurrency.with_limits, filters, upstreams)
        http = any(one.protocol == "http" for one in sections.listeners.values())
        usage = sections.telemetry.usage
        logs = keep("usage", (logs, usage, "metering" in used), _with_usage, logs, usage, "metering" in used)
        common = keep(
            "common",
            (filters, logs, sections.errors, sections.telemetry, "access_log" in used, context.geoip),
            partial(listeners.Common, located=bool(context.geoip)),
            *(filters, logs, sections.errors, sections.telemetry, "access_log" in used),
        )
        composed = keep(
            "compositions",
            (sections.routes, sections.errors, context.contents),
            *(self._compositions, sections.routes, sections.errors, context.contents),
        )
        if used.keys() <= _WITHOUT_OTHERS and not (sections.errors or context.mocks or composed):
            common = dataclasses.replace(common, few=_few(filters, used, context))
        if common == self._common:  # a new upstream makes new filters, which are mostly the same
            common = self._common
        self._common = common
        cds, eds = keep("upstreams", (sections.upstreams,), self._upstreams, sections.upstreams)
        surroundings = (sections.secrets, sections.upstreams, sections.listeners, context)
        self._ports = keep("ports", (sections.listeners, sections.stream_routes), ports, sections)
        resources = {
            CLUSTER: keep(
                CLUSTER,
                (cds, filters, rules, usage, composed),
                *(self._clusters, cds, filters, rules, used, context, usage, composed),
            ),
            ENDPOINT: eds,
            SECRET: keep(SECRET, surroundings, _secrets, sections, context),
            # without a listener for HTTP, no Envoy would request them
            EXTENSION_CONFIG: keep(EXTENSION_CONFIG, (filters, http), _extensions, filters if http else ()),
            LISTENER: keep(
                LISTENER,
                (self._ports, common, composed),
                *(self._all_listeners, self._ports, common, composed),
            ),
            ROUTE: list(self._routes(gateway)),
            **rules,
            RULE_TYPES[COMPOSITION.name]: composed,
        }
        self._memo.finish()
        return resources

    def _of_policies(
        self, used: Mapping[str, list[Any]], context: Context
    ) -> tuple[tuple[HttpFilter, ...], _Logs, dict[ResourceType, list[Resource]]]:
        return _filters(used, context), _access_logs(used, context), self._rules(used, context)

    def _clusters(
        self,
        upstreams: list[Resource],
        filters: tuple[HttpFilter, ...],
        rules: Mapping[ResourceType, list[Resource]],
        used: Mapping[str, list[Any]],
        context: Context,
        usage: Usage | None,
        composed: list[Resource],
    ) -> list[Resource]:
        services = self._called_services(used, rules, context, usage)
        return [*upstreams, *_called(filters), *services, *self._composer(composed)]

    def _composer(self, composed: list[Resource]) -> Iterator[Resource]:
        """Return the cluster of the composer, if a route needs it."""
        if composed:
            address = self._internal_services[composer_entry.SERVICE]
            yield Resource.of(clusters.internal_service(composer_entry.SERVICE, address))

    def _compositions(
        self, routes: Mapping[str, Route], errors: Mapping[str, ErrorOverride], contents: Contents
    ) -> list[Resource]:
        """Return the rules of the composer."""
        return [_rule(rule) for rule in compositions.rules(routes, errors, contents)]

    def _all_listeners(
        self, found: Iterable[Port], common: listeners.Common, composed: list[Resource]
    ) -> list[Resource]:
        own = self._listeners(found, common)
        if composed:
            message = compositions.calls_listener(self._composer_calls, common.telemetry.tracing)
            own.append(Resource.of(message))
        return own

    def warnings(self) -> Iterator[Problem]:
        """Yield a warning for each host of the last gateway whose requests Envoy compares with very many routes."""
        for host, found in self._tables.obstacles().items():
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            yield Problem(
                path=("routes", found[0]),
                message=f"Envoy compares requests for host {host} with very many routes one after the other, which is "
                f"slow, because the paths of too many routes begin alike, or are matched in any case: "
                f"{', '.join(found[:_NAMED])}{more}",
                remedy="begin each path with literal text of its own: ~^/orders/[0-9]+$ and not ~/[0-9]+$, "
                "/orders/{id} and not /{kind}/{id}; write paths that are matched in any case on a host of their own",
                at_key=True,
                severity="warning",
            )

    def _notice(self, gateway: Gateway) -> None:
        """Keep one object for the inputs of translated routes. It stays the same while none of them changes."""
        context, upstreams = gateway.context, gateway.sections.upstreams
        grpc = frozenset(name for name, upstream in upstreams.items() if upstream.protocol == "grpc")
        if grpc != self._grpc:
            self._grpc = grpc
        if (limited := adaptive_concurrency.adaptive(upstreams)) != self._limited:
            self._limited = limited
        found = (
            *(context.providers, context.consumers, context.plans, context.contents),
            *(context.apis, context.lifecycles, context.subscribers, context.mocks),
            *(context.graphql_costs, self._grpc, self._limited),
        )
        if len(self._surroundings) != len(found) or not all(map(is_, self._surroundings, found)):
            self._surroundings = found

    def _try(self, path: Path, make: Callable[..., Iterable[Any]], *arguments: Any) -> tuple[Any, ...]:
        try:
            return tuple(make(*arguments))
        except Mistake as mistake:
            value = None if mistake.value is ... else short_repr(mistake.value)
            where = (*path, "envoy", *mistake.path)
            self._problems.append(
                Problem(path=where, message=mistake.message, remedy=mistake.remedy, value=value)
            )
            return ()

    def _rules(self, used: Mapping[str, list[Any]], context: Context) -> dict[ResourceType, list[Resource]]:
        """Return the rules of all policies by type."""
        found: dict[ResourceType, list[Resource]] = {type_: [] for type_ in RULE_TYPES.values()}
        rules = (rule for policy in POLICIES for rule in policy.rules(used.get(policy.key, ()), context))
        for rule in chain(rules, mocks.rules(context)):
            type_ = RULE_TYPES[rule.type.name]
            found[type_].append(self._each_rule.get((type_, rule.name), (rule.value,), _rule, rule))
        self._each_rule.finish()
        return found

    def _called_services(
        self,
        used: Mapping[str, list[Any]],
        rules: Mapping[ResourceType, list[Resource]],
        context: Context,
        usage: Usage | None,
    ) -> Iterator[Resource]:
        """Return the clusters of the internal services that the gateway needs."""
        needed = {name for one in POLICIES for name in one.internal_services(used.get(one.key, ()), context)}
        if any(rules.values()):
            needed.add(SERVICE)
        if usage is not None:
            needed.add(usage_entry.SERVICE)
        for name in sorted(needed):
            yield Resource.of(clusters.internal_service(name, self._internal_services[name]))

    def _upstreams(self, upstreams: Mapping[str, Upstream]) -> tuple[list[Resource], list[Resource]]:
        """Return the clusters and the endpoints of all upstreams."""
        found: list[tuple[tuple[Resource, ...], tuple[Resource, ...]]] = [
            self._each_upstream.get(name, (upstream,), self._upstream, name, upstream)
            for name, upstream in upstreams.items()
        ]
        self._each_upstream.finish()
        return [one for some, _ in found for one in some], [one for _, some in found for one in some]

    def _upstream(self, name: str, upstream: Upstream) -> tuple[tuple[Resource, ...], tuple[Resource, ...]]:
        messages = self._try(("upstreams", name), lambda: [clusters.cluster(name, upstream)])
        served = (_load_assignment(name, upstream),) if clusters.has_eds(upstream) else ()
        return tuple(map(Resource.of, messages)), served

    def _listeners(self, found: Iterable[Port], common: listeners.Common) -> list[Resource]:
        resources: list[Resource] = []
        parts: dict[str, list[Port]] = {}
        for port in found:
            if port.destination is not None:
                parts.setdefault(names.listener(port), []).append(port)
        for port in found:
            if port.destination is not None:
                continue
            own = parts.get(names.listener(port), [])
            streams = [one for each in (port, *own) for of in each.streams.values() for one in of.items()]
            members = [one for each in (port, *own) for one in each.listeners.items()]
            names_in = (*(name for name, _ in members), *(name for name, _ in streams))
            inputs = (common, *(one for _, one in members), *(one for _, one in streams))
            resources += self._each_port.get(
                (names.listener(port), names_in), inputs, self._port, port, own, common
            )
        self._each_port.finish()
        return resources

    def _port(self, port: Port, parts: Sequence[Port], common: listeners.Common) -> tuple[Resource, ...]:
        path = ("listeners", next(iter(port.listeners)))
        return tuple(map(Resource.of, self._try(path, listeners.listeners, port, parts, common)))

    def _routes(self, gateway: Gateway) -> Iterator[Resource]:
        self._tables.update(gateway, self._surroundings)
        serving = [
            name
            for port in self._ports
            for name, listener in port.http.items()
            if listener.redirect_to_https is False
        ]
        self._tables.forget(serving)
        shared = {
            name: config
            for policy in POLICIES
            for name, config in policy.on_all_routes(gateway.context).items()
        }
        for port in self._ports:
            by_table: dict[str, list[str]] = {}
            for name in port.http:
                by_table.setdefault(names.routes(port, name), []).append(name)
            for table, members in by_table.items():
                hosts = self._hosts(port, members)
                alt_svc = listeners.alt_svc(port.listeners[members[0]])
                body = virtual_hosts.route_configuration(table, alt_svc, hosts, shared)
                yield Resource.from_bytes(table, body)

    def _hosts(self, port: Port, members: Sequence[str]) -> list[bytes]:
        """Return the serialized virtual hosts of a table, which is that of all these listeners of a port.

        A host that belongs to one of them is never answered by the routes of another one. In a table with TLS, a host
        of a listener with another table gets 421.
        """
        found: dict[str, bytes] = {}
        for name in members:
            port_of_https = port.listeners[name].redirect_to_https
            if port_of_https is False:
                found |= self._tables.hosts(port, name)
                own = () if port.listeners[name].any_host else port.own(name)
                found |= {host: self._tables.not_found(host) for host in own if host not in found}
            else:
                https = virtual_hosts.HTTPS if port_of_https is True else port_of_https
                found |= {host: virtual_hosts.to_https(host, https) for host in port.own(name)}
        for host, owner in port.owners.items():
            if owner not in members:
                found[host] = virtual_hosts.misdirected(host)
        if ANY_HOST not in found:  # an authority that is none of these may still have to be rejected
            found[ANY_HOST] = self._tables.not_found(ANY_HOST)
        return list(found.values())

    def _translated(self, ranked: Ranked, settings: Mapping[str, Any], context: Context) -> tuple[bytes, ...]:
        grpc = bool(ranked.route.targets) and self._grpc.issuperset(ranked.route.targets)
        make = partial(routes.translate, grpc=grpc, limited=self._limited)
        return self._try(("routes", ranked.name), make, ranked.name, ranked.route, settings, context)


def _called(filters: Iterable[HttpFilter]) -> Iterator[Resource]:
    urls = {names.cluster_of_url(url): url for one in filters for url in one.calls}
    for _, url in sorted(urls.items()):
        yield Resource.of(clusters.cluster_of_url(url))


def _load_assignment(name: str, upstream: Upstream) -> Resource:
    return Resource.of(endpoints.load_assignment(name, upstream), names.cluster(name))


def _rule(rule: Rule) -> Resource:
    return Resource.of(rule.build(), rule.name)


def _used(gateway: Gateway) -> dict[str, list[Any]]:
    """Return all settings that some route has, by policy key."""
    used: dict[str, dict[int, Any]] = {}
    for file in gateway.files:
        for key, values in file.used.items():
            used.setdefault(key, {}).update(values)
    return {key: list(known.values()) for key, known in used.items()}


def _filters(used: Mapping[str, list[Any]], context: Context) -> tuple[HttpFilter, ...]:
    """Return the chain of HTTP filters, which is the same in every listener."""
    return tuple(one for policy in POLICIES for one in policy.http_filters(used.get(policy.key, ()), context))


_WITHOUT_OTHERS = frozenset(("authorize", "cors"))
"""Policies whose filters need none of another policy."""


def _few(
    filters: Iterable[HttpFilter], used: Mapping[str, list[Any]], context: Context
) -> tuple[HttpFilter, ...]:
    """Return the filters that always run, and those of policies that are used."""
    names_used = {
        one.name
        for policy in POLICIES
        if policy.key in used
        for one in policy.http_filters(used[policy.key], context)
    }
    kept = (one.name in names_used or one.name.startswith(adaptive_concurrency.PREFIX) for one in filters)
    return tuple(one for one, keep in zip(filters, kept, strict=True) if one.always or keep)


def _with_telemetry(filters: tuple[HttpFilter, ...], sections: Sections) -> tuple[HttpFilter, ...]:
    """Return the chain with the filter that writes the version of the gateway into the metadata of requests."""
    logs = (log for one in sections.listeners.values() for log in logs_of(one, sections.telemetry).values())
    wanted = sections.telemetry.problem_version or any(log.has_version for log in logs)
    return (gateway_version.FILTER, *filters) if wanted else filters


def _with_usage(logs: _Logs, usage: Usage | None, by_route: bool) -> _Logs:
    """Return access logs with the one for the usage server."""
    return logs if usage is None else (*logs, usage_log.access_log(usage.flush, by_route=by_route))


def _access_logs(used: Mapping[str, list[Any]], context: Context) -> _Logs:
    """Return the access logs of policies, which are the same in every listener."""
    return tuple(log for policy in POLICIES for log in policy.access_logs(used.get(policy.key, ()), context))


def _secrets(sections: Sections, context: Context) -> list[Resource]:
    return [Resource.of(one) for one in secrets.secrets(sections, context)]


def _extensions(filters: Iterable[HttpFilter]) -> list[Resource]:
    return [_extension(one) for one in filters if one.dynamic]


def _extension(http_filter: HttpFilter) -> Resource:
    config = extension_pb2.TypedExtensionConfig(
        name=http_filter.name, typed_config=packed(http_filter.config)
    )
    return Resource.of(config)
