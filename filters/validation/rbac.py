"""The requirements of `validate` that Envoy enforces itself, before it authenticates: an RBAC filter."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from filters import body_limit
from filters.validation.settings import ValidateSettings

MISSING, TYPE, SIZE = "missing_header", "unsupported_media_type", body_limit.TOO_LARGE
_WITH_BODY = ("PATCH", "POST", "PUT")


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
