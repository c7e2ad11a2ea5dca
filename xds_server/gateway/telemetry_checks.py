"""Checks of the section `telemetry` against the rest of the gateway: its receivers, and secrets that it would log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from filters.language import Path, Problem
from filters.language.options import OFF
from filters.policy import Context
from xds_server.gateway.model.gateway import FileRoutes, Sections
from xds_server.gateway.model.logged_texts import logged_headers, logged_parameters
from xds_server.gateway.model.telemetry import Telemetry


def check(sections: Sections, routes: Sequence[FileRoutes], context: Context) -> Iterator[Problem]:
    """Yield problems of receivers without gRPC, and of logs with headers in which consumers send their keys."""
    telemetry = sections.telemetry
    logs = telemetry.access_logs or {}
    receivers: list[tuple[Path, str]] = [
        (("access_logs", name, "to", "otlp"), log.to.otlp) for name, log in logs.items() if log.to.otlp
    ]
    if telemetry.tracing is not None and telemetry.tracing.protocol == "grpc":
        receivers.append((("tracing", "upstream"), telemetry.tracing.upstream))
    for path, upstream in receivers:
        if upstream in context.upstreams and upstream not in context.http2:
            message = f"the upstream '{upstream}' does not use HTTP/2, and OTLP over gRPC needs it"
            remedy = f"write protocol: grpc in upstreams.{upstream}"
            yield Problem(path=("telemetry", *path), message=message, remedy=remedy)
    yield from _logged_secrets(telemetry, sections, routes)
    yield from _unknown_origins(sections)


def _logged_secrets(
    telemetry: Telemetry, sections: Sections, routes: Sequence[FileRoutes]
) -> Iterator[Problem]:
    """Yield problems of texts that contain the headers and query parameters in which callers send keys and tokens."""
    keys = [one for file in routes for one in file.used.get("api_key", {}).values() if one is not OFF]
    providers = sections.identity.values()
    secret = {
        **{("header", name): "tokens" for one in providers for name in map(str.lower, one.from_headers)},
        **{("query parameter", name): "tokens" for one in providers for name in one.from_query},
        **{("header", name.lower()): "API keys" for one in keys for name in one.rule()["headers"]},
        **{("query parameter", name): "API keys" for one in keys for name in one.rule()["query"]},
    }
    named: list[tuple[Path, tuple[str, str]]] = []
    for where, text in telemetry.texts():
        named += ((where, ("header", name)) for name in logged_headers(text))
        named += ((where, ("query parameter", name)) for name in logged_parameters(text))
    for name, log in (telemetry.access_logs or {}).items():
        named += (
            (("access_logs", name, "query", number), ("query parameter", parameter))
            for number, parameter in enumerate(log.query)
        )
    for where, one in named:
        if one in secret:
            message = f"the {one[0]} '{one[1]}' contains {secret[one]}"
            remedy = "log the field consumer instead"
            yield Problem(path=("telemetry", *where), message=message, remedy=remedy)


def _unknown_origins(sections: Sections) -> Iterator[Problem]:
    """Yield a problem for each field that needs a database, because clients could write its value without one."""
    for name, log in (sections.telemetry.access_logs or {}).items():
        for number, field in enumerate(log.fields):
            key = {"country": "countries", "asn": "asns"}.get(field, "")
            if key and key not in sections.geoip:
                message = f"the gateway has no database for the field '{field}'"
                path = ("telemetry", "access_logs", name, "fields", number)
                yield Problem(path=path, message=message, remedy=f"write geoip: {{{key}: /PATH.mmdb}}")
