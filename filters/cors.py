"""cors: which web pages of other origins may call (the Fetch standard's CORS protocol)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import wrappers_pb2

from filters.headers import HEADER_NAME
from filters.language import Mistake, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage

FILTER = "envoy.filters.http.cors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """Which web pages of other origins may call."""

    allow_origins: tuple[str, ...] = option(
        "Origins such as `https://shop.example.com`; `*` for all, `https://*.example.com` for subdomains.",
        minimum_items=1,
    )
    allow_methods: tuple[str, ...] = option(
        "Methods that pages may use.", default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    )
    allow_headers: tuple[str, ...] = option(
        "Request headers that pages may set.", default=("authorization", "content-type", "x-api-key")
    )
    expose_headers: tuple[str, ...] = option("Response headers that pages may read.", default=())
    allow_credentials: bool = option("Whether cookies and HTTP authentication may be used.", default=False)
    max_age: timedelta = option("How long a browser may remember a preflight.", default=timedelta(minutes=10))

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of single origins."""
        if self.allow_credentials and not {"*", "null"}.isdisjoint(self.allow_origins):
            # Any page has the origin `null` within a sandboxed frame.
            yield Mistake(
                "credentials for every origin would let any web page act for the user", "list the origins"
            )
        for key in ("allow_methods", "allow_headers", "expose_headers"):
            for number, name in enumerate(getattr(self, key)):
                if not re.fullmatch(HEADER_NAME, name):
                    yield Mistake("not a name", "use letters, digits and -", path=(key, number), value=name)
        for number, origin in enumerate(self.allow_origins):
            if origin not in ("*", "null") and not re.fullmatch(r"https?://(\*\.)?[^/*\s]+", origin):
                remedy = "write scheme and host, such as https://shop.example.com, without a path"
                yield Mistake("not an origin", remedy, path=("allow_origins", number), value=origin)


def _origin(origin: str) -> string_pb2.StringMatcher:
    if "*" not in origin:
        return string_pb2.StringMatcher(exact=origin)
    if origin == "*":
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".*"))
    regex = re.escape(origin).replace(r"\*", r"[^/.]+(\.[^/.]+)*")
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))


class Cors(Policy[CorsSettings]):
    """Compiled into Envoy's cors filter."""

    key = "cors"
    stage = Stage.ACCESS
    settings = CorsSettings

    def http_filters(self, used: Iterable[CorsSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=cors_pb2.Cors()),)

    def on_route(self, settings: CorsSettings, context: Context) -> RoutePart:
        policy = cors_pb2.CorsPolicy(
            allow_origin_string_match=[_origin(origin) for origin in settings.allow_origins],
            allow_methods=", ".join(settings.allow_methods),
            allow_headers=", ".join(settings.allow_headers),
            expose_headers=", ".join(settings.expose_headers),
            max_age=str(int(settings.max_age.total_seconds())),
            allow_credentials=wrappers_pb2.BoolValue(value=settings.allow_credentials),
        )
        return RoutePart(filter_configs={FILTER: policy}, answers_preflight=True)
