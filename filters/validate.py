"""validate: Envoy rejects requests that are malformed for their route before it authenticates them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf.message import Message

from filters import body_limit
from filters.language import Mistake, Size, option
from filters.language.tokens import TOKEN
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "xds.validate"
MISSING, TYPE, SIZE = "missing_header", "unsupported_media_type", body_limit.TOO_LARGE
_MEDIA_TYPE = re.compile(rf"{TOKEN}/{TOKEN}")
_WITH_BODY = ("PATCH", "POST", "PUT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """The requirements on a request."""

    required_headers: tuple[str, ...] = option(
        "Headers that must be present and not empty; 400.", default=(), narrows=True
    )
    content_types: tuple[str, ...] = option(
        "Media types of request bodies, such as `application/json`, `image/*` or `application/*+json`; 415.",
        default=(),
        narrows=True,
    )
    max_body: Size | None = option(
        "The size of the largest request body; 413 above it. Envoy buffers the body before it forwards the request.",
        default=None,
        minimum=1,
        maximum=2**32 - 1,
        narrows=True,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each invalid entry."""
        if not (self.required_headers or self.content_types or self.max_body):
            yield Mistake("nothing to validate", "write required_headers, content_types or max_body")
        for number, name in enumerate(self.required_headers):
            if not re.fullmatch(TOKEN, name):
                path = ("required_headers", number)
                yield Mistake("not a header's name", "write x-tenant", path=path, value=name)
        for number, one in enumerate(self.content_types):
            if not _MEDIA_TYPE.fullmatch(one):
                path = ("content_types", number)
                yield Mistake("not a media type", "write application/json", path=path, value=one)


def _header(name: str, regex: str) -> pb.Permission:
    """True for a request whose header is present and matches as a whole."""
    string = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))
    return pb.Permission(header=route_components_pb2.HeaderMatcher(name=name, string_match=string))


def _not(permission: pb.Permission) -> pb.Permission:
    return pb.Permission(not_rule=permission)


def _any(*permissions: pb.Permission) -> pb.Permission:
    return pb.Permission(or_rules=pb.Permission.Set(rules=permissions))


def _all(*permissions: pb.Permission) -> pb.Permission:
    return pb.Permission(and_rules=pb.Permission.Set(rules=permissions))


def _missing(names: Iterable[str]) -> pb.Permission:
    return _any(*(_not(_header(name.lower(), ".+")) for name in sorted(names)))


def _wrong_type(types: Iterable[str]) -> pb.Permission:
    """True for a request with another media type, or with a body but no type.

    Names match in any case, and parameters may follow after a semicolon (RFC 9110 section 8.3).
    """
    names = "|".join(re.escape(type_).replace(r"\*", "[^/;,]+") for type_ in sorted(types))
    kind = _header("content-type", rf"(?i)({names})\s*(;[^,]*)?")
    present = _header("content-type", ".*")
    no_length = _header("content-length", "0")
    body = _any(
        _header("content-length", "[1-9][0-9]*"),
        _all(_header(":method", "|".join(_WITH_BODY)), _not(no_length)),
    )
    return _any(_all(present, _not(kind)), _all(_not(present), body))


def rbac(settings: ValidateSettings) -> pb.RBAC:
    """One RBAC policy for each requirement. Its name is in the details of Envoy's response."""
    wrong: dict[str, pb.Permission] = {}
    if settings.required_headers:
        wrong[MISSING] = _missing(settings.required_headers)
    if settings.content_types:
        wrong[TYPE] = _wrong_type(settings.content_types)
    if settings.max_body is not None:
        wrong[SIZE] = body_limit.too_large(settings.max_body)
    anybody = pb.Principal(any=True)
    policies = {name: pb.Policy(permissions=[one], principals=[anybody]) for name, one in wrong.items()}
    return pb.RBAC(action=pb.RBAC.DENY, policies=policies)


def _reason(name: str, title: str, status: int) -> Reason:
    when = details(f"rbac_access_denied_matched_policy[{name}]")
    return Reason(name=name, title=title, status=status, when=when)


class Validate(Policy[ValidateSettings]):
    """Compiled into an RBAC filter before authentication, and a limit of the body after it."""

    key = "validate"
    stage = Stage.VALIDATE
    settings = ValidateSettings
    enforced_by = "Envoy (RBAC before authentication; buffer)"
    reasons = (
        _reason(MISSING, "A required header is missing", 400),
        _reason(TYPE, "The content type is not supported", 415),
        _reason(SIZE, "The request body is too large", 413),
    )

    def route_key(self, settings: ValidateSettings) -> str | None:
        return None if settings.max_body is None else "max_body"

    def http_filters(self, used: Iterable[ValidateSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=filter_pb2.RBAC(rules_stat_prefix="validate.")),)

    def on_route(self, settings: ValidateSettings, context: Context) -> RoutePart:
        rules = rbac(settings)
        configs: dict[str, Message] = {FILTER: filter_pb2.RBACPerRoute(rbac=filter_pb2.RBAC(rules=rules))}
        if settings.max_body is not None:
            configs |= body_limit.on_route(settings.max_body)
        return RoutePart(filter_configs=configs)
