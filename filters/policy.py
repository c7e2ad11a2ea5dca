"""What every policy is: the settings a user writes, and what Envoy gets for them.

A policy returns configuration and never places it: translate/ puts filters into listeners and the rest onto
routes. Filters are installed in every listener from the start and do nothing until a route carries their
configuration, so that adding a policy to a route is a route change and never a listener change, which would
drain connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2
from google.protobuf.message import Message

from filters.language import DataSource, Mistake, Problem
from filters.model.identity import Consumer, Plan, Provider
from filters.reasons import Reason
from filters.rules import Rule, RuleType


class Stage(StrEnum):
    """The pipeline: policies run in this order, whatever order they are written in."""

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
    """One filter of every listener's chain, `name` unique in it.

    `dynamic` delivers the configuration by ECDS, for filters whose own configuration changes with the gateway
    (a new JWT provider), so that such a change does not touch the listener either. A filter is installed
    disabled unless `always`, and a route enables it by carrying its configuration.
    `calls` are the URLs that the filter itself fetches; each gets a cluster named `cluster_of_url(url)`.
    """

    name: str
    config: Message
    dynamic: bool = False
    always: bool = False
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePart:
    """What a policy contributes to one route.

    `filter_configs` are typed_per_filter_config by filter name. Header values may use Envoy's substitution
    formats. `answers_preflight` says that its filter answers CORS preflights, so that these reach it even where
    the route itself is not for OPTIONS. `own_paths` are paths that its filter answers itself wherever the route
    is (a login's way back): each becomes a route beside it that carries `filter_configs`.
    """

    filter_configs: Mapping[str, Message] = field(default_factory=dict)
    request_headers: tuple[base_pb2.HeaderValueOption, ...] = ()
    request_headers_to_remove: tuple[str, ...] = ()
    response_headers: tuple[base_pb2.HeaderValueOption, ...] = ()
    response_headers_to_remove: tuple[str, ...] = ()
    answers_preflight: bool = False
    own_paths: tuple[str, ...] = ()


NOTHING = RoutePart()


@dataclass(frozen=True, slots=True)
class Levels:
    """Settings that apply together, by the place where each was written, outermost first."""

    places: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of the gateway that a policy may refer to.

    While one route is checked or translated, `route` is its name and `effective` are all its effective settings by
    policy key, for policies that depend on each other (several ways to authenticate). `path_regex` matches the
    route's whole path with its names as groups, where the path has names, else it is empty. `forwards` says that
    the route goes to an upstream.
    """

    providers: Mapping[str, Provider] = field(default_factory=dict)
    consumers: Mapping[str, Consumer] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    upstreams: frozenset[str] = frozenset()
    contents: Mapping[DataSource, bytes] = field(default_factory=dict)
    """What each DataSource of the gateway holds."""
    route: str = ""
    effective: Mapping[str, Any] = field(default_factory=dict)
    path_regex: str = ""
    forwards: bool = False

    def on_route(
        self, route: str, effective: Mapping[str, Any], path_regex: str = "", *, forwards: bool = False
    ) -> Context:
        """The same for one route (dataclasses.replace is slow, and a gateway has many routes)."""
        return Context(
            providers=self.providers,
            consumers=self.consumers,
            plans=self.plans,
            upstreams=self.upstreams,
            contents=self.contents,
            route=route,
            effective=effective,
            path_regex=path_regex,
            forwards=forwards,
        )


S = TypeVar("S")


class Policy(Generic[S]):
    """A policy of the language. Subclasses are stateless; one instance stands in `filters.POLICIES`.

    `settings` is the type that the decoder reads for `key`: a frozen dataclass with options, perhaps with a
    shorthand, or a union of types.
    """

    key: ClassVar[str]
    stage: ClassVar[Stage]
    settings: ClassVar[Any]
    enforced_by: ClassVar[str] = "Envoy"
    reasons: ClassVar[tuple[Reason, ...]] = ()
    rule_types: ClassVar[tuple[RuleType, ...]] = ()
    cumulative: ClassVar[bool] = False
    """Whether the settings of all levels apply together, as `Levels`, instead of the nearest's alone."""
    on_by_default: ClassVar[bool] = False
    """Whether a route has it unless it says `off`, which then stays among its settings."""

    remedy_if_local: ClassVar[str] = "remove it"
    """The remedy where settings do not hold because the gateway answers itself."""
    since: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({})
    """Filters that older Envoys reject, by name, with the first release that accepts them."""
    for_pages: ClassVar[bool] = False
    """Whether the gateway's own 404 and 405 carry it too: pages must be able to read them."""
    responds: ClassVar[bool] = False
    """Whether a route that carries it needs no action, because the policy answers each request."""

    def check(self, settings: S, context: Context) -> Iterable[Mistake]:
        """Mistakes that only show beside the rest of the gateway, such as a provider that does not exist."""
        return ()

    def cross_checks(self, context: Context) -> Iterable[Problem]:
        """Problems of the gateway as a whole that concern this policy, if a route has it or not. Paths are absolute."""
        return ()

    def route_key(self, settings: S) -> str | None:
        """The key of a route that says the same as these settings: a route with both is a mistake."""
        return None

    def own_headers(self, context: Context) -> Iterable[str]:
        """Request headers that only the gateway sets, in lower case: no route can be chosen by them."""
        return ()

    def identifies(self, consumer: Consumer) -> bool:
        """True if the consumer has a credential that this policy accepts."""
        return False

    def http_filters(self, used: Iterable[S], context: Context) -> tuple[HttpFilter, ...]:
        """The filters of this policy in every listener's chain, in their order.

        `used` are all settings that some route carries; only a dynamic filter may depend on them.
        """
        return ()

    def on_route(self, settings: S, context: Context) -> RoutePart:
        """What a route with these settings carries."""
        raise NotImplementedError

    def off_route(self, context: Context) -> RoutePart:
        """What a route without this policy carries: nothing, unless the filter is `always` on."""
        return NOTHING

    def rules(self, used: Iterable[S], context: Context) -> Iterable[Rule]:
        """What policy servers are told, of `rule_types` only. Where any rule is, the gateway has a policy server.

        `used` are all settings that some route carries. Names are unique for each type.
        """
        return ()

    def secrets(self, context: Context) -> Iterable[tuple[str, bytes]]:
        """Secrets that the filters of this policy fetch by SDS: name and content."""
        return ()

    def access_logs(self, used: Iterable[S], context: Context) -> Iterable[accesslog_pb2.AccessLog]:
        """Access logs of every listener. A log that depends on `used` changes the listener, which drains connections."""
        return ()

    def internal_services(self, used: Iterable[S], context: Context) -> Iterable[str]:
        """Names of services of ours that filters of this policy call. Rules call the policy server without being named."""
        return ()

    def for_local_answers(self, settings: S) -> S | None:
        """What of these settings holds where no request goes to an upstream, as the gateway answers itself."""
        return settings

    def explain(self, settings: S, context: Context) -> str:
        """Where and how these settings are enforced, in a few words, for ``xds explain``."""
        return self.enforced_by


def cluster_of_url(url: str) -> str:
    """The name of the cluster through which Envoy's own filters fetch from `url`."""
    parts = urlsplit(url)
    return f"url/{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def header(name: str, value: str, *, append: bool = False) -> base_pb2.HeaderValueOption:
    """A header to set, or to add beside those that are there."""
    option = base_pb2.HeaderValueOption(append_action=_ADD if append else _OVERWRITE)
    option.header.key, option.header.value = name, value
    return option


_ADD = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
