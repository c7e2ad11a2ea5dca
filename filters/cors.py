"""cors: web pages of other origins that may call a route (the Fetch standard's CORS protocol).

Envoy's own filter handles only routes that forward, does not set `vary`, and lets preflights of foreign origins
through. So a Lua script answers instead. It runs before every filter that may reject a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.language import Mistake, option
from filters.language.tokens import TOKEN
from filters.lua_literals import lua
from filters.model import origins
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason

FILTER = "xds.cors"
_SCRIPT = resources.files(__package__).joinpath("cors.lua").read_text()
_LABELS = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"
"""The text for which the ``*`` of an origin stands."""
_FORBIDDEN = ("CONNECT", "TRACE", "TRACK")
"""Methods that browsers do not let a page use (Fetch standard, section 2.2.1)."""
GRPC_WEB_HEADERS = ("content-type", "grpc-timeout", "x-grpc-web", "x-user-agent")
GRPC_WEB_EXPOSED = ("grpc-message", "grpc-status", "grpc-status-details-bin")
"""Headers that gRPC-Web clients read, in addition to their own metadata (the protocol of grpc/grpc-web)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """Web pages of other origins that may call the route."""

    allow_origins: tuple[str, ...] = option(
        "Origins as browsers send them, such as `https://shop.example.com` or `capacitor://localhost`; `*` for all, "
        "`https://*.example.com` for subdomains.",
        minimum_items=1,
    )
    allow_methods: tuple[str, ...] = option(
        "Methods that pages may use.",
        default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        narrows=True,
    )
    allow_headers: tuple[str, ...] = option(
        "Request headers that pages may set. With `grpc_web`, the headers of its clients are added.",
        default=("authorization", "content-type", "x-api-key"),
    )
    expose_headers: tuple[str, ...] = option(
        "Response headers that pages may read. With `grpc_web`, the headers of its responses are added.",
        default=(),
    )
    allow_credentials: bool = option("True if pages may send cookies and HTTP authentication.", default=False)
    any_page_acts_for_the_user: bool = option(
        "Dangerous: with `allow_credentials`, allow `*` and `null` too, so that every web page can act for a user who is "
        "signed in here.",
        default=False,
    )
    max_age: timedelta = option(
        "The time for which a browser may cache a preflight response.", default=timedelta(minutes=10)
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each invalid origin, method or header."""
        open_to_all = not {"*", "null"}.isdisjoint(self.allow_origins)
        if self.allow_credentials and open_to_all and not self.any_page_acts_for_the_user:
            # Every page in a sandboxed frame has the origin `null`.
            yield Mistake(
                "credentials for every origin would let any web page act for the user", "list the origins"
            )
        for key in ("allow_methods", "allow_headers", "expose_headers"):
            for number, name in enumerate(getattr(self, key)):
                if not re.fullmatch(TOKEN, name):
                    yield Mistake("not a name", "use letters, digits and -", path=(key, number), value=name)
        for number, method in enumerate(self.allow_methods):
            if method != method.upper():
                message = "browsers send methods in upper case"
                yield Mistake(
                    message, f"write {method.upper()}", path=("allow_methods", number), value=method
                )
            elif method in _FORBIDDEN:
                yield Mistake(
                    "browsers do not let a page use this method",
                    "remove it",
                    path=("allow_methods", number),
                    value=method,
                )
        for number, origin in enumerate(self.allow_origins):
            if origin not in ("*", "null") and (fault := origins.fault(origin)) is not None:
                yield Mistake(fault[0], fault[1], path=("allow_origins", number), value=origin)


def allows(settings: CorsSettings, origin: str) -> bool:
    """True if pages of an origin, in lower case, may read responses of a route with these settings."""
    if not {"*", origin}.isdisjoint(settings.allow_origins):
        return True
    parts = (one.partition("*") for one in settings.allow_origins if "*." in one)
    return any(
        origin.startswith(before)
        and origin.endswith(after)
        and re.fullmatch(_LABELS, origin[len(before) : -len(after)])
        for before, _, after in parts
    )


def _rule(settings: CorsSettings, *, grpc_web: bool) -> Mapping[str, Any]:
    """The rule of a route for the script."""
    origins = {one: True for one in settings.allow_origins if "*" not in one}
    parts = [one.partition("*") for one in settings.allow_origins if "*." in one]
    headers, exposed = settings.allow_headers, settings.expose_headers
    if grpc_web:
        headers, exposed = _with(headers, GRPC_WEB_HEADERS), _with(exposed, GRPC_WEB_EXPOSED)
    listed = {"methods": settings.allow_methods, "headers": headers, "expose": exposed}
    return {
        "all": "*" in settings.allow_origins,
        "origins": origins,
        "subdomains": [{"before": before, "after": after} for before, _, after in parts],
        "credentials": settings.allow_credentials,
        "max_age": str(int(settings.max_age.total_seconds())),
        **({"any": "*"} if "*" in settings.allow_origins and not settings.allow_credentials else {}),
        **{
            key: "*" if key != "expose" and "*" in names else ", ".join(names)
            for key, names in listed.items()
            if names
        },
    }


def _with(names: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    known = {name.lower() for name in names}
    return (*names, *(name for name in more if name not in known))


class Cors(Policy[CorsSettings]):
    """Enforced by its own Lua script, which runs before every filter that may reject a request."""

    key = "cors"
    stage = Stage.VALIDATE
    settings = CorsSettings
    enforced_by = "Envoy (Lua)"
    for_pages = True
    reasons = (
        Reason(
            name="cors_denied",
            title="Requests from this origin are not allowed",
            status=403,
            when=f"response.code == 403 && has(metadata.filter_metadata['{FILTER}'].foreign) && "
            "request.method == 'OPTIONS' && response.code_details == 'lua_response'",
        ),
    )

    def http_filters(self, used: Iterable[CorsSettings], context: Context) -> tuple[HttpFilter, ...]:
        config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
        config.default_source_code.inline_string = _SCRIPT
        return (HttpFilter(name=FILTER, config=config),)

    def on_route(self, settings: CorsSettings, context: Context) -> RoutePart:
        grpc_web = getattr(context.effective.get("grpc_web"), "enabled", False)
        rule = struct_pb2.Struct()
        rule.update({"rule": lua(_rule(settings, grpc_web=grpc_web))})
        return RoutePart(
            filter_configs={FILTER: lua_pb2.LuaPerRoute(filter_context=rule)}, answers_preflight=True
        )
