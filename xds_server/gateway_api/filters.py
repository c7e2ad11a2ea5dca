"""Filters of rules and backends in the gateway language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xds_server.gateway_api.conditions import Condition, accepted, resolved
from xds_server.gateway_api.route_specs import (
    CorsFilter,
    Filter,
    HeaderFilter,
    PathModifier,
    RedirectFilter,
    RewriteFilter,
)
from xds_server.gateway_api.upstreams import Resolve, ServiceUpstream

LISTENER_PORT = 0
"""Stands for the port of the listener in a redirect to another host, as the specification says."""


class Unsupported(Exception):  # noqa: N818 - becomes a condition of the route, never leaves this package
    """A filter that cannot be applied. Its requests must be answered with an error."""

    def __init__(self, condition: Condition) -> None:
        super().__init__(condition.message)
        self.condition = condition


def filter_values(
    filters: Iterable[Filter], prefix: bool, resolve: Resolve, *, of_backend: bool = False
) -> tuple[dict[str, Any], list[ServiceUpstream], list[Condition]]:
    """Return the keys of a route (or of a backend of a split) for filters, the upstreams of mirrors, and their faults.

    `prefix` is true if the path of the match is a prefix. A mirror whose backend does not exist is left out.
    Raises Unsupported.
    """
    values: dict[str, Any] = {}
    mirrors: list[dict[str, Any]] = []
    upstreams: list[ServiceUpstream] = []
    faults: list[Condition] = []
    for one in filters:
        if one.request_header_modifier is not None:
            values["request_headers"] = _headers(one.request_header_modifier)
        elif one.response_header_modifier is not None:
            values["response_headers"] = _headers(one.response_header_modifier)
        elif one.request_redirect is not None:
            values["redirect"] = _redirect(one.request_redirect, prefix)
        elif one.url_rewrite is not None:
            values["rewrite"] = _rewrite(one.url_rewrite, prefix)
        elif one.cors is not None and not of_backend:
            values["policies"] = {"cors": _cors(one.cors)}
        elif one.request_mirror is not None:
            found = resolve(one.request_mirror.backend_ref)
            if isinstance(found, Condition):
                faults.append(found)
            elif found.usable:
                upstreams.append(found)
                mirrors.append({"upstream": found.name, "percent": f"{one.request_mirror.share:g}%"})
        elif one.extension_ref is not None:
            message = f"the kind {one.extension_ref.kind} of the filter {one.extension_ref.name} is not known"
            raise Unsupported(resolved("InvalidKind", message))
        else:
            message = f"the filter {one.type} is not supported{' for one backend' if of_backend else ''}"
            raise Unsupported(accepted("UnsupportedValue", message))
    if mirrors:
        values["mirror"] = mirrors
    return values, upstreams, faults


def _headers(changes: HeaderFilter) -> Mapping[str, Any]:
    """Return changes of headers. The first of several entries for one name counts, as the specification says."""
    values: dict[str, Any] = {}
    for key, entries in (("set", changes.set), ("add", changes.add)):
        named: dict[str, str] = {}
        for one in entries:
            named.setdefault(one.name.lower(), one.value.replace("%", "%%"))
        if named:
            values[key] = named
    if changes.remove:
        values["remove"] = list(changes.remove)
    return values


def _path(path: PathModifier, prefix: bool) -> str:
    if path.replace_full_path is not None:
        return path.replace_full_path or "/"
    if not prefix:
        message = "ReplacePrefixMatch needs a match of the type PathPrefix"
        raise Unsupported(accepted("UnsupportedValue", message))
    return f"{(path.replace_prefix_match or '').rstrip('/')}/*"


def _redirect(redirect: RedirectFilter, prefix: bool) -> Mapping[str, Any]:
    port = redirect.port
    if redirect.hostname is not None and redirect.scheme is None and port is None:
        port = LISTENER_PORT
    parts = {"scheme": redirect.scheme, "host": redirect.hostname, "port": port}
    values: dict[str, Any] = {key: value for key, value in parts.items() if value is not None}
    values["status"] = redirect.status_code
    if redirect.path is not None:
        values["path"] = _path(redirect.path, prefix)
    return values


def _rewrite(rewrite: RewriteFilter, prefix: bool) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    if rewrite.hostname is not None:
        values["host"] = rewrite.hostname
    if rewrite.path is not None:
        values["path"] = _path(rewrite.path, prefix)
    return values


def _cors(cors: CorsFilter) -> Mapping[str, Any]:
    values: dict[str, Any] = {
        "allow_origins": list(cors.allow_origins) or ["*"],
        "max_age": f"{cors.max_age}s",
    }
    for key, names in (
        ("allow_methods", cors.allow_methods),
        ("allow_headers", cors.allow_headers),
        ("expose_headers", cors.expose_headers),
    ):
        if names:
            values[key] = list(names)
    if cors.allow_credentials:
        values["allow_credentials"] = True
        if "*" in values["allow_origins"]:  # the specification allows it
            values["any_page_acts_for_the_user"] = True
    return values
