"""The policies transform and fields. Envoy runs a script that changes bodies and keeps every byte that no change names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters.decompression.names import CONSTANTS, FAILURES, SCRIPTS
from filters.language import Mistake
from filters.lua_literals import script
from filters.model.identity import NAMESPACE as IDENTITY
from filters.policy import NOTHING, Context, HttpFilter, Policy, RoutePart, Stage
from filters.policy_server import SERVICE
from filters.reasons import Reason
from filters.transform import rule, sources
from filters.transform.settings import FieldsSettings, TransformSettings

FILTER = "xds.transform"
UNAVAILABLE = "transform_unavailable"


def _reason(name: str, title: str, status: int) -> Reason:
    when = f"metadata.filter_metadata['{FILTER}'].failure == '{name}'"
    return Reason(name=name, title=title, status=status, when=when, own_body=True)


REASONS = (
    _reason("malformed_body", "The request body is malformed", 400),
    _reason("unsupported_charset", "The charset of the request body is not supported", 415),
    *(_reason(name, title, status) for name, (title, status) in FAILURES.items()),
    _reason(UNAVAILABLE, "The request body could not be decoded now", 503),
    replace(_reason("transform_failed", "The gateway could not change the message", 500), own_body=False),
    _reason(
        "response_not_transformable", "The upstream's response cannot be changed as this route requires", 500
    ),
    Reason(
        name="response_too_large",
        title="The upstream's response is too large",
        status=500,
        when="response.code_details == 'response_payload_too_large'",
    ),
)
_OF_BODY = (
    *("accept-ranges", "cache-control", "content-digest", "content-disposition", "content-encoding"),
    *("content-language", "content-location", "content-md5", "content-range", "digest", "etag", "expires"),
    *("last-modified", "repr-digest", "set-cookie"),
)
"""Headers of a response that are about its body, which the client does not get if the response is rejected."""

S = TypeVar("S", TransformSettings, FieldsSettings)


class _Scripted(Policy[S]):
    """What both policies share: one filter, one rule for each route."""

    stage = Stage.TRANSFORM
    enforced_by = "Envoy (Lua; the policy server decodes compressed bodies)"

    def http_filters(self, used: Iterable[S], context: Context) -> tuple[HttpFilter, ...]:
        return ()

    def on_route(self, settings: S, context: Context) -> RoutePart:
        first = next(key for key in ("transform", "fields") if key in context.effective)
        if self.key != first:
            return NOTHING
        filter_context = struct_pb2.Struct()
        filter_context.update({"rule": rule.text(context)})
        return RoutePart(
            filter_configs={FILTER: lua_pb2.LuaPerRoute(filter_context=filter_context)},
            buffer=rule.largest_body(context),
        )

    def internal_services(self, used: Iterable[S], context: Context) -> Iterable[str]:
        return (SERVICE,) if any(True for _ in used) else ()

    def for_local_answers(self, settings: S) -> S | None:
        return None


class Transform(_Scripted[TransformSettings]):
    """Compiled into a Lua script in Envoy, which changes JSON texts without parsing them into values."""

    key = "transform"
    settings = TransformSettings
    reasons = REASONS

    def check(self, settings: TransformSettings, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of sources that this route does not have, and of headers that tell who the caller is."""
        claimed = {name.lower() for one in context.providers.values() for name in one.claim_headers.values()}
        for direction, changes in (("request", settings.request), ("response", settings.response)):
            if changes is None:
                continue
            headers = changes.headers.settings() if changes.headers is not None else {}
            renamed = changes.headers.rename if changes.headers is not None else {}
            for old, new in renamed.items():
                if new.lower() in claimed:
                    yield Mistake(
                        "this header contains a claim, and upstreams trust it",
                        "use another name",
                        path=(direction, "headers", "rename", old),
                        value=new,
                    )
            for place, found in (
                *(((direction, "headers", "set", name), one) for name, one in headers.items()),
                *(
                    ((direction, "set", path), one)
                    for path, one in zip(changes.set, changes.changes()[1], strict=True)
                ),
            ):
                if found.source is not None:
                    fault = sources.check(found.source, context, (*place, "from"))
                    if fault is not None:
                        yield fault

    def http_filters(self, used: Iterable[TransformSettings], context: Context) -> tuple[HttpFilter, ...]:
        config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
        config.default_source_code.inline_string = script(
            {
                **CONSTANTS,
                "NAMESPACE": FILTER,
                "IDENTITY": IDENTITY,
                "UNAVAILABLE": UNAVAILABLE,
                "OF_BODY": _OF_BODY,
                "FAILURES": {one.name: {"status": one.status, "title": one.title} for one in REASONS},
            },
            "transform/json.lua",
            *SCRIPTS,
            "transform/transform.lua",
        )
        return (HttpFilter(name=FILTER, config=config),)


class Fields(_Scripted[FieldsSettings]):
    """Applied by the script of `transform`, after it."""

    key = "fields"
    settings = FieldsSettings
