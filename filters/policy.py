"""The base of all policies: the settings that a user writes, and the configuration that Envoy gets for them.

A policy returns configuration and never places it: translate/ puts filters into listeners and the rest onto routes.
Filters are installed in every listener from the start, and do nothing until a route has their configuration. So adding
a policy to a route changes only the route. A change of the listener would drain connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from google.protobuf import struct_pb2
from google.protobuf.message import Message

from filters.language import DataSource, Mistake, Problem
from filters.model.geoip import NO_GEOIP, Geoip
from filters.model.identity import Consumer, Plan, Provider
from filters.reasons import Reason
from filters.rules import Rule, RuleType


class Stage(StrEnum):
    """The stages of the pipeline. Policies run in this order; the order in the YAML does not matter."""

    VALIDATE = "validate"
    ACCESS = "access"
    AUTHENTICATE = "authenticate"
    AUTHORIZE = "authorize"
    LIMIT = "limit"
    TRANSCODE = "transcode"
    TRANSFORM = "transform"
    CACHE = "cache"
    BACKEND = "backend"
    RESPOND = "respond"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilter:
    """One filter in the chain of every listener. `name` is unique in the chain.

    `dynamic` delivers the configuration by ECDS. It is for filters whose own configuration changes with the gateway
    (a new JWT provider), so that such a change does not change the listener. A filter is installed disabled unless
    `always`, and a route with its configuration enables it.
    `calls` are the URLs that the filter itself fetches. Each gets a cluster named `cluster_of_url(url)`.
    """

    name: str
    config: Message
    dynamic: bool = False
    always: bool = False
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewField:
    """A field of some filters that Envoys before the release `since` reject.

    `feature` describes it for the table of versions. `without` returns the serialized configuration of a filter in
    `filters` without the field. Routes that configure a filter in `closes` answer 503, because of `message`.
    """

    feature: str
    since: tuple[int, int]
    filters: frozenset[str]
    without: Callable[[bytes], Message]
    closes: frozenset[str] = frozenset()
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePart:
    """The configuration of a policy for one route.

    `filter_configs` are typed_per_filter_config by filter name. Header values may use Envoy's substitution
    formats. `answers_preflight` is true if its filter answers CORS preflights, so they must reach it even if the route
    itself does not accept OPTIONS. `own_paths` are further paths that its filter answers itself, such as the callback
    of a login. Each becomes a route next to it with the same `filter_configs`. `buffer` is the size in bytes of the
    largest body that its filters keep as a whole, 0 if they keep none. `variants` divide the requests of the route:
    Envoy takes the first that matches, and the last has to match all. One policy of a route has variants. `metadata` is the
    metadata of the route by namespace, and `tracing` says which of its requests are traced.
    """

    filter_configs: Mapping[str, Message] = field(default_factory=dict)
    request_headers: tuple[base_pb2.HeaderValueOption, ...] = ()
    request_headers_to_remove: tuple[str, ...] = ()
    response_headers: tuple[base_pb2.HeaderValueOption, ...] = ()
    response_headers_to_remove: tuple[str, ...] = ()
    answers_preflight: bool = False
    own_paths: tuple[str, ...] = ()
    buffer: int = 0
    variants: tuple[Variant, ...] = ()
    metadata: Mapping[str, struct_pb2.Struct] = field(default_factory=dict)
    tracing: route_components_pb2.Tracing | None = None


NOTHING = RoutePart()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A part of the requests of a route, with a route of Envoy of its own.

    It has the requests of the route with one of these `methods` (all if empty), a path with its query that `path`
    matches (an RE2 for the whole text, all if empty) and a content type that begins with `content_type`. With
    `has_query` it has only those with a query.

    `status` is 0 if they are handled as the route says, with `part` too. Otherwise the gateway rejects them with this
    status. `allow` are the methods that a 405 names, and `name` tells rejections with one status apart.
    """

    name: str = ""
    methods: tuple[str, ...] = ()
    path: str = ""
    has_query: bool = False
    content_type: str = ""
    status: Literal[0, 400, 404, 405] = 0
    allow: tuple[str, ...] = ()
    part: RoutePart = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The parts of a route that policies check their settings against.

    `path` is the RE2 for its whole path, `targets` are its upstreams. `rewrites_path` and `upgrades` are true if it
    changes the path towards them and if it allows WebSockets.
    """

    path: str
    targets: tuple[str, ...]
    rewrites_path: bool
    upgrades: bool


LISTS = frozenset(("link",))
"""Headers of `Context.lifecycle` of which a response may have several."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Settings that apply together, each with the place where it was written, outermost first."""

    places: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of the gateway that a policy may refer to.

    While one route is checked or translated, `route` is its name and `effective` are all its effective settings by
    policy key, for policies that depend on each other (several ways to authenticate). `path_regex` matches the route's
    whole path with its names as groups. It is empty if the path has no names. `forwards` is true if the route goes to
    an upstream.
    """

    providers: Mapping[str, Provider] = field(default_factory=dict)
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    upstreams: frozenset[str] = frozenset()
    http2: frozenset[str] = frozenset()
    """The upstreams that always get HTTP/2, which gRPC needs."""
    contents: Mapping[DataSource, bytes] = field(default_factory=dict)
    """The content of each DataSource of the gateway."""
    route: str = ""
    effective: Mapping[str, Any] = field(default_factory=dict)
    path_regex: str = ""
    forwards: bool = False
    composition: str = ""
    """The name of the rule by which the composer answers the route, which changes with its content; "" if it does not."""
    trailers: bool = False
    """True if trailers of requests may reach an upstream. Envoy drops them before upstreams that speak HTTP/1."""
    errors: Mapping[str, Any] = field(default_factory=dict)
    """The overrides of the gateway's own responses (`error_overrides.ErrorOverride`), by reason."""
    shape: Shape | None = None
    """The route that is checked. None while a route is translated."""
    series_until: str | None = None
    """The last consumer, in the order of names, that has metrics of its own. None if Envoy counts no consumers."""
    subscribers: bool = False
    """True if the gateway has a portal, so that there are consumers that its files do not name."""
    apis: Mapping[str, str] = field(default_factory=dict)
    """The name of the API to which a route belongs, by the name of the route."""
    lifecycles: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Headers of all responses of an API, with their values, by the name of the API."""

    mocks: Mapping[str, Any] = field(default_factory=dict)
    """The mocks of upstreams (`mock.settings.Mock`), by the names of the routes to them."""
    graphql_costs: Mapping[str, int] = field(default_factory=dict)
    """The most that a request of GraphQL may cost, by the name of its route."""
    geoip: Geoip = NO_GEOIP
    """The databases of countries and autonomous systems."""

    @property
    def mock(self) -> Any:
        """The mock that answers requests of the route, or None."""
        return self.mocks.get(self.route)

    @property
    def api(self) -> str | None:
        """The name of the API of the catalogue to which the route belongs, or None."""
        return self.apis.get(self.route)

    @property
    def lifecycle(self) -> tuple[tuple[str, str], ...]:
        """Headers of all responses of the route's API, with their values. `LISTS` are added to those of upstreams."""
        return self.lifecycles.get(self.apis.get(self.route, ""), ())

    def needs_http2(self) -> Iterator[Mistake]:
        """Yield a mistake for each upstream of the checked route to which gRPC cannot be sent."""
        for target in self.shape.targets if self.shape is not None else ():
            if target in self.upstreams and target not in self.http2:
                message = f"the upstream '{target}' does not use HTTP/2, and gRPC needs it"
                yield Mistake(message, f"write protocol: grpc in upstreams.{target}")

    def on_route(
        self,
        route: str,
        effective: Mapping[str, Any],
        path_regex: str = "",
        *,
        forwards: bool = False,
        composition: str = "",
        shape: Shape | None = None,
    ) -> Context:
        """The context of one route. It does not use dataclasses.replace, which is slow for many routes."""
        return Context(
            providers=self.providers,
            consumers=self.consumers,
            plans=self.plans,
            upstreams=self.upstreams,
            http2=self.http2,
            contents=self.contents,
            route=route,
            effective=effective,
            path_regex=path_regex,
            forwards=forwards,
            composition=composition,
            trailers=self.trailers,
            errors=self.errors,
            shape=shape,
            series_until=self.series_until,
            subscribers=self.subscribers,
            apis=self.apis,
            lifecycles=self.lifecycles,
            mocks=self.mocks,
            graphql_costs=self.graphql_costs,
            geoip=self.geoip,
        )


S = TypeVar("S")


class Policy(Generic[S]):
    """A policy of the language. Subclasses are stateless. `filters.POLICIES` has one instance of each.

    `settings` is the type that the decoder reads for `key`: a frozen dataclass with options, perhaps with a
    shorthand, or a union of types.
    """

    key: ClassVar[str]
    stage: ClassVar[Stage]
    settings: ClassVar[Any]
    enforced_by: ClassVar[str] = "Envoy"
    reasons: ClassVar[tuple[Reason, ...]] = ()
    answers: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Responses that its filter makes itself and that stay as they are, whatever their status: the namespace and the key
    of metadata that is 'true' for them."""
    rule_types: ClassVar[tuple[RuleType, ...]] = ()
    cumulative: ClassVar[bool] = False
    """True if the settings of all levels apply together, as `Levels`. Else only those of the nearest level apply."""
    on_by_default: ClassVar[bool] = False
    """True if a route has the policy unless it says `off`. `off` is then one of the settings."""

    remedy_if_local: ClassVar[str] = "remove it"
    """The remedy if settings have no effect because the gateway answers itself."""
    since: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({})
    """Filters that older Envoys reject, by name, with the first release that accepts them."""
    new_fields: ClassVar[tuple[NewField, ...]] = ()
    """Fields of its filters that older Envoys reject."""
    for_pages: ClassVar[bool] = False
    """True if the gateway's own 404 and 405 have the policy too, so that web pages can read them."""
    responds: ClassVar[bool] = False
    """True if a route with the policy needs no action, because the policy answers each request."""

    def check(self, settings: S, context: Context) -> Iterable[Mistake]:
        """Mistakes that need the rest of the gateway, such as a provider that does not exist."""
        return ()

    def check_streams(self, settings: S, context: Context) -> Iterable[Mistake]:
        """Mistakes on a route whose messages may be streams: it allows upgrades, or an upstream speaks gRPC."""
        return ()

    def cross_checks(self, context: Context) -> Iterable[Problem]:
        """Problems of the gateway as a whole that concern this policy, if a route has it or not. Paths are absolute."""
        return ()

    def route_key(self, settings: S) -> str | None:
        """The key of a route with the same meaning as these settings. A route with both is a mistake."""
        return None

    def own_headers(self, context: Context) -> Iterable[str]:
        """Request headers that only the gateway sets, in lower case. Routes cannot match by them."""
        return ()

    def identifies(self, consumer: Consumer) -> bool:
        """True if the consumer has a credential that this policy accepts."""
        return False

    def exposes(self, settings: S, context: Context) -> Iterable[str]:
        """The gRPC methods that a route with these settings lets clients call, as ``package.Service/Method``."""
        return ()

    def http_filters(self, used: Iterable[S], context: Context) -> tuple[HttpFilter, ...]:
        """The filters of this policy in every listener's chain, in their order.

        `used` are all settings of all routes. Only a dynamic filter may depend on them.
        """
        return ()

    def on_route(self, settings: S, context: Context) -> RoutePart:
        """The configuration of a route with these settings."""
        raise NotImplementedError

    def off_route(self, context: Context) -> RoutePart:
        """The configuration of a route without this policy: empty unless the filter is `always` on."""
        return NOTHING

    def on_all_routes(self, context: Context) -> Mapping[str, Message]:
        """The configuration that all routes of a listener share, by filter name. It enables these filters on each."""
        return {}

    def rules(self, used: Iterable[S], context: Context) -> Iterable[Rule]:
        """The rules for policy servers, of `rule_types` only. A gateway with any rule has a policy server.

        `used` are all settings of all routes. Names are unique for each type.
        """
        return ()

    def secrets(self, context: Context) -> Iterable[tuple[str, bytes]]:
        """Secrets that the filters of this policy fetch by SDS: name and content."""
        return ()

    def access_logs(self, used: Iterable[S], context: Context) -> Iterable[accesslog_pb2.AccessLog]:
        """Access logs of every listener.

        A log that depends on `used` changes the listener, which drains connections.
        """
        return ()

    def internal_services(self, used: Iterable[S], context: Context) -> Iterable[str]:
        """Names of our own services that filters of this policy call.

        A policy with rules need not name the policy server.
        """
        return ()

    def for_local_answers(self, settings: S) -> S | None:
        """The part of these settings that applies if the gateway answers itself, without an upstream."""
        return settings

    def explain(self, settings: S, context: Context) -> str:
        """The process that enforces these settings, and how, in a few words, for ``xds explain``."""
        return self.enforced_by


def cluster_of_url(url: str) -> str:
    """The name of the cluster through which Envoy's own filters fetch from `url`."""
    parts = urlsplit(url)
    return f"url/{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def header(name: str, value: str, *, append: bool = False) -> base_pb2.HeaderValueOption:
    """A header to set, or to `append` to those of the same name."""
    option = base_pb2.HeaderValueOption(append_action=_ADD if append else _OVERWRITE)
    option.header.key, option.header.value = name, value
    return option


_ADD = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
