"""Routes: the requests that match, and how the gateway handles them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from filters.headers import HeaderMutation
from filters.language import Mistake, Path, Raw, Shorthand, Size, option
from filters.language.problems import did_you_mean
from filters.language.tokens import TOKEN
from filters.transform.sources import segments
from xds_server.gateway.model import hosts
from xds_server.gateway.model.actions import (
    Backend,
    Mirror,
    Redirect,
    Respond,
    Rewrite,
    as_tuple,
    check_regex,
)
from xds_server.gateway.model.aggregate import Aggregate
from xds_server.gateway.model.graphql import Graphql
from xds_server.gateway.model.paths import PathMatch, parse_path
from xds_server.gateway.model.policies import NONE, Policies

METHODS = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "M-SEARCH",
    "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK",
    "UNLOCK", "UNSUBSCRIBE",
)  # fmt: skip
"""The methods that Envoy's HTTP/1 parser knows. Envoy responds with 400 to any other."""
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueMatch:
    """The condition on a header or a query parameter."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str, int, float, bool), "the exact value", {"type": ["string", "number", "boolean"]}
    )
    exact: str | None = option("Equal to this.", default=None)
    prefix: str | None = option("Begins with this.", default=None)
    suffix: str | None = option("Ends with this.", default=None)
    contains: str | None = option("Contains this.", default=None)
    regex: str | None = option("Matches this RE2 as a whole.", default=None)
    present: bool | None = option("Whether it is present.", default=None)
    invert: bool = option("Match if the other condition does not.", default=False, key="not")

    @classmethod
    def short(cls, value: Any) -> ValueMatch:
        """Return a match of an exact value."""
        return cls(exact=str(value).lower() if isinstance(value, bool) else str(value))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if there is not exactly one condition."""
        given = [self.exact, self.prefix, self.suffix, self.contains, self.regex, self.present]
        if sum(one is not None for one in given) != 1:
            yield Mistake(
                "exactly one of exact, prefix, suffix, contains, regex and present is needed", "keep one"
            )
        for key in ("prefix", "suffix", "contains", "regex"):
            if getattr(self, key) == "":
                yield Mistake(
                    "every value matches an empty text",
                    "write {present: true} for any value",
                    path=(key,),
                    value="",
                )
        if self.regex:
            yield from check_regex(self.regex)


RETRY_ON = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited",
    "retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
    "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Retry if it is safe."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((int,), "a number of attempts", {"type": "integer"})
    attempts: int = option("Retries after the first attempt.", default=1, minimum=0, maximum=20)
    on: tuple[str, ...] = option(
        "Envoy's retry conditions, or statuses.",
        default=("connect-failure", "refused-stream", "reset-before-request"),
    )
    per_try_timeout: timedelta | None = option("Timeout of each attempt.", default=None, minimum=0.001)
    backoff: timedelta = option(
        "Wait before the first retry; it grows with each retry.",
        default=timedelta(milliseconds=25),
        minimum=0.001,
    )
    max_backoff: timedelta = option("The longest wait.", default=timedelta(milliseconds=250), minimum=0.001)
    avoid_failed_hosts: bool = option("Prefer an endpoint that was not tried.", default=True)

    @classmethod
    def short(cls, value: Any) -> Retry:
        """Return a retry with a number of attempts. Raises Mistake."""
        if isinstance(value, bool) or not 0 <= value <= 20:
            raise Mistake("attempts must be from 0 to 20", "write a number")
        return cls(attempts=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each unknown condition."""
        for number, condition in enumerate(self.on):
            status = condition.isascii() and condition.isdigit() and 100 <= int(condition) <= 599
            if condition not in RETRY_ON and not status:
                remedy = "write a status or one of " + ", ".join(RETRY_ON)
                yield Mistake("unknown retry condition", remedy, path=("on", number), value=condition)
        if self.max_backoff < self.backoff:
            yield Mistake("max_backoff is below backoff", "raise it", path=("max_backoff",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Retry without cancelling the slow attempt; the first response wins."""

    on_per_try_timeout: bool = option("When `retry.per_try_timeout` has passed.", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityCookie:
    """A cookie, set by the gateway, that names the endpoint."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "the cookie's name")
    name: str = option("The cookie's name.", pattern=TOKEN, shape="a cookie's name")
    ttl: timedelta = option("Lifetime; `0s`: until the browser is closed.", default=timedelta(0))
    path: str = option("The cookie's path.", default="/")

    @classmethod
    def short(cls, value: Any) -> AffinityCookie:
        """Return a cookie of this name."""
        return cls(name=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAffinity:
    """All requests of one client go to one endpoint."""

    cookie: AffinityCookie | None = option("By a cookie of the gateway; any load balancing.", default=None)
    header: str | None = option("By a header's value; needs ring_hash or maglev.", default=None)
    query: str | None = option("By a query parameter; needs ring_hash or maglev.", default=None)
    client_address: bool = option("By the client's address; needs ring_hash or maglev.", default=False)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if there is not exactly one way."""
        if (
            sum(
                [
                    self.cookie is not None,
                    self.header is not None,
                    self.query is not None,
                    self.client_address,
                ]
            )
            != 1
        ):
            yield Mistake("exactly one of cookie, header, query and client_address is needed", "keep one")


TIMEOUT = timedelta(seconds=15)
"""The default timeout of a response."""
_ACTIONS = ("upstream", "split", "redirect", "respond", "aggregate", "graphql")
MOST_WEIGHT = 2**32 - 1
"""The largest sum of the weights of a split, which is Envoy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The requests that match, and how they are handled: one of upstream, split, redirect, respond, aggregate and graphql."""

    path: str = option("`/x` exact, `/x/*` prefix, `/x/{id}` template, `~^/regex` RE2.", default="/*")
    hosts: tuple[str, ...] = option("Exact or `*.example.com`; all if left out.", default=(), narrows=True)
    listeners: tuple[str, ...] = option("All if left out.", default=(), refers="listeners", narrows=True)
    methods: tuple[str, ...] = option("All if left out.", default=(), narrows=True)
    headers: Mapping[str, ValueMatch] = option("Headers that must match.", default=_EMPTY, narrows=True)
    query: Mapping[str, ValueMatch] = option(
        "Query parameters that must match.", default=_EMPTY, narrows=True
    )
    upstream: str | None = option("Forward to this upstream.", default=None, refers="upstreams")
    split: Mapping[str, int] | tuple[Backend, ...] | None = option(
        "Forward by weight: {orders: 90, orders-next: 10}. A list gives each share changes of its own.",
        default=None,
        refers="upstreams",
    )
    redirect: Redirect | None = option("Redirect the client to another address.", default=None)
    respond: Respond | None = option("Respond from the gateway itself.", default=None)
    aggregate: Aggregate | None = option(
        "Answer with the answers of several calls to upstreams.", default=None
    )
    graphql: Graphql | None = option("Answer GraphQL by calls to upstreams.", default=None)
    rewrite: Rewrite | None = option("Change the request that the upstream gets.", default=None)
    mirror: Mirror | tuple[Mirror, ...] | None = option("Send copies to other upstreams.", default=None)
    timeout: timedelta | None = option(
        "For the whole response, retries included; 504 after it. `0`: no limit. Default 15s; if all targets have "
        "`protocol: grpc`, the client's `grpc-timeout`.",
        default=None,
    )
    idle_timeout: timedelta | None = option(
        "For a request without traffic; default the listener's.", default=None
    )
    retry: Retry | None = option(
        "Retry if it is safe. With `aggregate` and `graphql`, this is for calls by GET and HEAD; `backoff` has no effect there.",
        default=None,
    )
    hedge: Hedge | None = option("Retry without cancelling the slow attempt.", default=None)
    websocket: bool = option("Allow the WebSocket upgrade; the timeout then ends with it.", default=False)
    session_affinity: SessionAffinity | None = option(
        "Requests of one client go to one endpoint.", default=None
    )
    max_body: Size | None = option(
        "The request body; 413 above it. Buffered before it is forwarded.",
        default=None,
        minimum=1,
        narrows=True,
    )
    request_headers: HeaderMutation | None = option("Change headers towards the upstream.", default=None)
    response_headers: HeaderMutation | None = option("Change headers towards the client.", default=None)
    wrong_method: Literal[405, 404] = option(
        "The status if only the method differs from those of the route, and no other route matches.",
        default=405,
    )
    priority: Literal["default", "high"] = option(
        "With `high`, the route has the limits of the upstream's `circuit_breaker` for itself, and its `adaptive_concurrency` "
        "rejects none of its requests: in an overload, Envoy rejects the other routes first.",
        default="default",
    )
    order: int = option(
        "Decides between routes that are equally specific, before the name does: the smaller number wins.",
        default=0,
        minimum=-(2**53),
        maximum=2**53,
    )
    use: tuple[str, ...] = option("Policy sets, later ones win.", default=(), refers="policy_sets")
    policies: Policies = option("Policies of this route alone.", default=NONE)
    envoy: Raw | None = option("Raw Envoy fields merged into the generated Route.", default=None)

    @property
    def match(self) -> PathMatch:
        """The parsed path."""
        return parse_path(self.path)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """All mirrors."""
        return as_tuple(self.mirror)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The shares of `split`, without those of weight 0."""
        if isinstance(self.split, tuple):
            return tuple(one for one in self.split if one.weight)
        weights = sorted((self.split or {}).items())
        return tuple(Backend(upstream=name, weight=weight) for name, weight in weights if weight)

    @property
    def targets(self) -> tuple[str, ...]:
        """The upstreams to which requests are forwarded. The composer calls upstreams, and forwards to none."""
        if self.upstream is not None:
            return (self.upstream,)
        if isinstance(self.split, tuple):
            return tuple(dict.fromkeys(one.upstream for one in self.split if one.upstream is not None))
        return tuple(self.split or ())

    @property
    def forwards(self) -> bool:
        """True if the response comes from outside of Envoy: from an upstream, or from the composer."""
        return self.composed is not None or bool(self.targets)

    @property
    def composed(self) -> Aggregate | Graphql | None:
        """What the composer does for this route."""
        return self.aggregate if self.aggregate is not None else self.graphql

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys of one route."""
        yield from self._check_match()
        actions = [key for key in _ACTIONS if getattr(self, key) is not None]
        if not actions and self.policies.answering is not None:
            yield from self._check_local(self.policies.answering)
        elif len(actions) != 1:
            found = "several: " + ", ".join(actions) if actions else "none"
            remedy = "keep one" if actions else "add one"
            message = f"a route has one of {', '.join(_ACTIONS[:-1])} and {_ACTIONS[-1]}"
            yield Mistake(message, remedy, value=found)
        elif self.composed is not None:
            yield from self._check_composed(actions[0])
        elif actions[0] in ("redirect", "respond"):
            yield from self._check_local(actions[0])
        else:
            yield from self._check_forward()

    def _check_match(self) -> Iterator[Mistake]:
        try:
            parse_path(self.path)
        except Mistake as mistake:
            yield Mistake(mistake.message, mistake.remedy, path=("path",), value=self.path)
        yield from hosts.check(self.hosts)
        for number, method in enumerate(self.methods):
            if method not in METHODS:
                remedy = did_you_mean(method.upper(), METHODS)
                yield Mistake("not a method", remedy, path=("methods", number), value=method)
        for key, names in (("headers", self.headers), ("query", self.query)):
            if "" in names:
                yield Mistake("a name is empty", "write the name, or remove it", path=(key, ""), value="")
        for name, match in self.query.items():
            if match.regex is not None and match.invert:
                remedy = "write a regex of what should match, or 'not' with exact, prefix, suffix or contains"
                yield Mistake("Envoy cannot invert a regex here", remedy, path=("query", name, "not"))

    def _check_local(self, action: str) -> Iterator[Mistake]:
        for key in ("rewrite", "mirror", "retry", "hedge", "session_affinity"):
            if getattr(self, key) is not None:
                yield Mistake(
                    f"'{key}' needs an upstream, and this route has '{action}'", "remove it", path=(key,)
                )
        if self.redirect is not None:
            key = "to" if self.redirect.to is not None else "path"
            yield from self._check_target(self.redirect.new_path, ("redirect", key))
        if self.websocket:
            yield Mistake(
                f"'websocket' needs an upstream, and this route has '{action}'",
                "remove it",
                path=("websocket",),
            )

    def _check_composed(self, action: str) -> Iterator[Mistake]:
        for key in ("rewrite", "mirror", "hedge", "session_affinity", "idle_timeout", "websocket"):
            if getattr(self, key) not in (None, False):
                message = f"'{key}' needs an upstream, and this route has '{action}'"
                yield Mistake(message, "remove it", path=(key,))
        if self.aggregate is not None:
            yield from self._check_sources(self.aggregate)

    def _check_sources(self, aggregate: Aggregate) -> Iterator[Mistake]:
        try:
            names, found = segments(parse_path(self.path).named_regex), list(aggregate.sources())
        except Mistake:
            return
        for place, one in found:
            if one.kind == "path" and one.name not in names:
                remedy = f"write the path as a template, such as /users/{{{one.name}}}"
                message = f"the path of this route has no segment {{{one.name}}}"
                yield Mistake(message, remedy, path=("aggregate", *place), value=str(one))

    def _check_forward(self) -> Iterator[Mistake]:
        if self.split is not None:
            yield from self._check_split()
        if self.hedge is not None and (self.retry is None or self.retry.per_try_timeout is None):
            yield Mistake("'hedge' needs retry.per_try_timeout", "add it", path=("hedge",))
        if self.rewrite is not None and self.rewrite.path is not None:
            yield from self._check_target(self.rewrite.path, ("rewrite", "path"))

    def _check_split(self) -> Iterator[Mistake]:
        listed = isinstance(self.split, tuple)
        weights = (
            [one.weight for one in self.split]
            if isinstance(self.split, tuple)
            else [*(self.split or {}).values()]
        )
        if sum(weights) < 1 or min(weights) < 0:
            remedy = "write [{upstream: a, weight: 90}, …]" if listed else "write {a: 90, b: 10}"
            yield Mistake("weights must be whole numbers from 0, and not all 0", remedy, path=("split",))
        elif sum(weights) > MOST_WEIGHT:
            message = f"the weights add up to more than {MOST_WEIGHT}"
            yield Mistake(message, "write smaller ones", path=("split",))
        elif not self.targets:
            remedy = "write 'redirect' or 'respond' in place of 'split'"
            yield Mistake("no share of the split has an upstream", remedy, path=("split",))
        for number, one in enumerate(self.split if isinstance(self.split, tuple) else ()):
            place = ("split", number)
            if one.rewrite is not None and one.rewrite.path is not None:
                yield from self._check_target(one.rewrite.path, (*place, "rewrite", "path"))
            if one.redirect is not None:
                key = "to" if one.redirect.to is not None else "path"
                yield from self._check_target(one.redirect.new_path, (*place, "redirect", key))

    def time_limit(self, grpc: bool) -> timedelta:
        """Return the timeout of the whole response, 0 for none. `grpc` is true if all targets use gRPC."""
        if self.timeout is not None:
            return self.timeout
        return timedelta(0) if grpc else TIMEOUT

    def _check_target(self, target: str, place: Path) -> Iterator[Mistake]:
        try:
            match = parse_path(self.path)
        except Mistake:
            return
        if target.endswith("/*") and match.kind != "prefix":
            remedy = "end the route's path with /* too, or name segments as {name}"
            yield Mistake("/* needs a route whose path ends with /*", remedy, path=place, value=target)
        for name in re.findall(r"\{(\w+)\}", target):
            if name not in match.names:
                remedy = "the path has " + (", ".join(match.names) or "no names")
                yield Mistake(f"the route's path has no {{{name}}}", remedy, path=place, value=target)
