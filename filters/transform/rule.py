"""The rule of a route for the script: both policies together, because one script applies them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from filters.lua_literals import lua
from filters.policy import Context
from filters.transform import paths, sources
from filters.transform.plans import Change, Plan, plan
from filters.transform.settings import (
    BodyChanges,
    FieldsSettings,
    HeaderChanges,
    RequestTransform,
    ResponseTransform,
    TransformSettings,
)
from filters.transform.settings import sources as sources_of
from filters.transform.sources import Setting, Source

RESPONSE_REASONS = ("response_not_transformable", "response_too_large", "transform_failed")
"""The reasons for which the script itself replaces a response."""
OF_CALLER = ("claim", "consumer", "ip", "plan")
"""Kinds of sources whose values differ among the callers of one URL."""


class _Numbers:
    """The sources of a rule, each with its number. Captures of the body have numbers of their own."""

    def __init__(self) -> None:
        self.known: dict[Source, int] = {}

    def of(self, source: Source) -> int:
        """The number of a source."""
        return self.known.setdefault(source, len(self.known) + 1)


def rule(context: Context) -> dict[str, Any]:
    """The rule of a route with `transform` or `fields`."""
    transform: TransformSettings | None = context.effective.get("transform")
    fields: FieldsSettings | None = context.effective.get("fields")
    numbers = _Numbers()
    result: dict[str, Any] = {}
    if transform is not None and transform.request is not None:
        result["request"] = _direction(transform.request, numbers)
    response = transform.response if transform is not None else None
    if response is not None:
        result["response"] = _direction(response, numbers, response=True)
        if response.statuses:
            result["response"]["statuses"] = [int(str(one).removesuffix("xx")) for one in response.statuses]
    if fields is not None:
        result |= _views(fields, numbers)
        own = result.setdefault("response", {})
        own["limit"] = max(own.get("limit", 0), int(fields.max_body))
    if any(one.kind in OF_CALLER for one in _of_responses(response, fields)):
        result["private"] = True
    if "response" in result and (errors := _errors(context)):
        result["errors"] = errors
    result["sources"] = [sources.rule(source, context) for source in numbers.known]
    return result


def _of_responses(response: ResponseTransform | None, fields: FieldsSettings | None) -> Iterator[Source]:
    """Yield the sources on which responses depend."""
    if fields is not None:
        yield fields.source
    if response is not None:
        headers = response.headers.settings().values() if response.headers is not None else ()
        yield from sources_of((*response.changes()[1], *headers))


def _errors(context: Context) -> dict[str, Any]:
    """The overrides of responses that the script makes, by reason. Envoy applies those of its own responses."""
    found = {}
    for reason in RESPONSE_REASONS:
        override = context.errors.get(reason)
        if override is not None:
            values = {key: getattr(override, key) for key in ("status", "title", "detail", "type")}
            found[reason] = {key: value for key, value in values.items() if value is not None}
            if override.headers:
                found[reason]["headers"] = {name.lower(): value for name, value in override.headers.items()}
            if override.body is not None:
                found[reason]["body"] = json.dumps(
                    dict(override.body), ensure_ascii=False, separators=(",", ":")
                )
    return found


def largest_body(context: Context) -> int:
    """Bytes of the largest body that the script keeps as a whole, 0 if it reads no bodies."""
    return max(
        (
            result.get("limit", 0)
            for key in ("request", "response")
            if "limit" in (result := rule(context).get(key, {}))
        ),
        default=0,
    )


def text(context: Context) -> str:
    """The rule as the script reads it."""
    return lua(rule(context))


def _direction(
    changes: RequestTransform | ResponseTransform, numbers: _Numbers, *, response: bool = False
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if changes.headers is not None:
        result["headers"] = _headers(changes.headers, numbers, response=response)
    found = _body(changes, numbers, response=response)
    if found:
        result["plan"] = found
        result["limit"] = int(changes.max_body)
        if changes.oversize == "pass":
            result["pass"] = True
    return result


def _headers(changes: HeaderChanges, numbers: _Numbers, *, response: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if changes.remove:
        result["remove"] = [name.lower() for name in changes.remove]
    if changes.rename:
        result["rename"] = [[old.lower(), new.lower()] for old, new in changes.rename.items()]
    if changes.set:
        result["set"] = [
            {"name": name, **_value(one, numbers, response=response)}
            for name, one in changes.settings().items()
        ]
    return result


def _value(one: Setting, numbers: _Numbers, *, response: bool) -> dict[str, Any]:
    if one.source is None:
        return {"text": one.json or ""}
    source = one.source
    if response and source.kind == "header":
        source = Source("response_header", source.name)
    default = {} if one.default is None else {"default": one.default}
    return {"source": numbers.of(source), **default}


def _body(changes: BodyChanges, numbers: _Numbers, *, response: bool) -> Plan:
    found, settings = changes.changes()
    captures: dict[Source, int] = {}
    values: list[dict[str, Any]] = []
    for one in settings:
        if one.source is not None and one.source.kind == "body":
            number = captures.setdefault(one.source, len(captures) + 1)
            default = {} if one.default is None else {"default": one.default}
            values.append({"captured": number, **default})
        else:
            values.append(_value(one, numbers, response=response))
    all_changes = [
        Change(one.steps, "set", values[one.detail]) if one.what == "set" else one for one in found
    ]
    all_changes += [Change(paths.names(one.name), "capture", number) for one, number in captures.items()]
    return plan(
        all_changes,
        unwrap=paths.names(changes.unwrap) if changes.unwrap is not None else (),
        wrap=paths.names(changes.wrap) if changes.wrap is not None else (),
    )


def _views(fields: FieldsSettings, numbers: _Numbers) -> dict[str, Any]:
    views, other = fields.plans()
    result: dict[str, Any] = {"views": views, "default": other, "by": numbers.of(fields.source)}
    if fields.source.kind == "header":
        result["vary"] = fields.source.name
    return result
