"""csrf: browsers may send requests that change something only from pages of this host (Origin header, RFC 6454).

Envoy's filter compares hosts and ports, not schemes: decision 010.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.csrf.v3 import csrf_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.v3 import percent_pb2

from filters.language import Mistake, Shorthand, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "envoy.filters.http.csrf"
_ALWAYS = base_pb2.RuntimeFractionalPercent(default_value=percent_pb2.FractionalPercent(numerator=100))


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrfSettings:
    """POST, PUT, PATCH and DELETE need an Origin (or Referer) of the request's own host, or of one of these hosts."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((bool,), "true", {"const": True})
    hosts: tuple[str, ...] = option(
        "Further hosts whose pages may send such requests, such as `shop.example.com`, `shop.example.com:8443` or "
        "`*.example.com` for subdomains.",
        default=(),
    )

    @classmethod
    def short(cls, _value: Any) -> CsrfSettings:
        """The settings that ``true`` stands for."""
        return cls()

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each invalid host."""
        for number, host in enumerate(self.hosts):
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?", host):
                remedy = "write a host without scheme and path, such as shop.example.com"
                yield Mistake("not a host", remedy, path=("hosts", number), value=host)


def _host(host: str) -> string_pb2.StringMatcher:
    if not host.startswith("*."):
        return string_pb2.StringMatcher(exact=host, ignore_case=True)
    regex = rf"(?i)[^/.:]+(\.[^/.:]+)*{re.escape(host[1:])}"
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))


class Csrf(Policy[CsrfSettings]):
    """Compiled into Envoy's csrf filter."""

    key = "csrf"
    stage = Stage.ACCESS
    settings = CsrfSettings
    reasons = (
        Reason(
            name="csrf_denied",
            title="The origin of the request is missing or not allowed",
            status=403,
            when=details("csrf_origin_mismatch"),
        ),
    )

    def http_filters(self, used: Iterable[CsrfSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=csrf_pb2.CsrfPolicy(filter_enabled=_ALWAYS)),)

    def on_route(self, settings: CsrfSettings, context: Context) -> RoutePart:
        hosts = [_host(host) for host in settings.hosts]
        config = csrf_pb2.CsrfPolicy(filter_enabled=_ALWAYS, additional_origins=hosts)
        return RoutePart(filter_configs={FILTER: config})
