"""cors: web pages of other origins that may call a route (the Fetch standard's CORS protocol).

Envoy's own filter handles only routes that forward, does not set `vary`, and lets preflights of foreign origins
through. So a Lua script answers instead. It runs before every filter that may reject a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.lua_literals import lua
from filters.model.cors import CorsSettings
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason

FILTER = "xds.cors"
_SCRIPT = resources.files(__package__).joinpath("cors.lua").read_text()
GRPC_WEB_HEADERS = ("content-type", "grpc-timeout", "x-grpc-web", "x-user-agent")
GRPC_WEB_EXPOSED = ("grpc-message", "grpc-status", "grpc-status-details-bin")
"""Headers that gRPC-Web clients read, in addition to their own metadata (the protocol of grpc/grpc-web)."""


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
