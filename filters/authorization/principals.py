"""Principals of Envoy's RBAC: callers by the names in their certificates, and requests by their method and path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import path_pb2, regex_pb2, string_pb2

from filters.language import Mistake
from filters.model import escapes

_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()+,;=:@%-]*)+(?P<below>/\*)?")
EVERYBODY = pb.Principal(any=True)


def every(principals: Sequence[pb.Principal]) -> pb.Principal:
    """Return what all of these principals have in common; everybody for none."""
    if not principals:
        return EVERYBODY
    return principals[0] if len(principals) == 1 else pb.Principal(and_ids=pb.Principal.Set(ids=principals))


def some(principals: Sequence[pb.Principal]) -> pb.Principal:
    """Return what is one of these principals."""
    return principals[0] if len(principals) == 1 else pb.Principal(or_ids=pb.Principal.Set(ids=principals))


def without(denied: Sequence[pb.Principal]) -> list[pb.Principal]:
    """Return a condition that none of these principals meets; nothing for none."""
    return [pb.Principal(not_id=some(denied))] if denied else []


def client(name: str) -> pb.Principal:
    """Return callers whose certificate has a name: DNS or URI, ``*.example.com``, or ``spiffe://example.com/*``."""
    if name.startswith("*."):
        matcher = string_pb2.StringMatcher(suffix=name[1:])
    elif "://" in name and name.endswith("/*"):
        matcher = string_pb2.StringMatcher(prefix=name[:-1])
    else:
        matcher = string_pb2.StringMatcher(exact=name)
    return pb.Principal(authenticated=pb.Principal.Authenticated(principal_name=matcher))


def method(name: str) -> pb.Principal:
    """Return callers with requests of an HTTP method."""
    exact = string_pb2.StringMatcher(exact=name)
    return pb.Principal(header=route_components_pb2.HeaderMatcher(name=":method", string_match=exact))


def check_path(text: str) -> None:
    """Raise Mistake unless a text is a path: exact, or with ``/*`` for itself and all below."""
    if not _PATH.fullmatch(text):
        raise Mistake("not a path", "write /orders, or /orders/* for all below too", value=text)
    body = text.removesuffix("/*")
    if any(one in (".", "..", "") for one in body.split("/")[1:-1]) or body.endswith(("/.", "/..")):
        raise Mistake("this is resolved before paths are compared", "write the resolved path", value=text)
    for escape in escapes.found(body):
        if len(escape) == 1:
            raise Mistake("% begins an escape of two hexadecimal digits", "write %25", value=text)
        if (char := escapes.decoded(escape)) is not None:
            raise Mistake(f"{escape} is decoded before paths are compared", f"write {char}", value=text)


def path(text: str) -> pb.Principal:
    """Return callers with requests for a path, in all its spellings (RFC 3986), whatever their query is."""
    body = text.removesuffix("/*")
    regex = escapes.spellings(escapes.canonical(body)) + ("(?:/.*)?" if body != text else "")
    match = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))
    return pb.Principal(url_path=path_pb2.PathMatcher(path=match))


def of_connections(rules: Iterable[tuple[Sequence[str], bool]]) -> pb.RBAC:
    """Return rules about connections: each has the names of clients, and whether it denies."""
    listed = list(rules)
    denied = [client(name) for names, deny in listed if deny for name in sorted(names)]
    allowed = [client(name) for names, deny in listed if not deny for name in sorted(names)]
    who = every([*([some(allowed)] if allowed else []), *without(denied)])
    policy = pb.Policy(permissions=[pb.Permission(any=True)], principals=[who])
    return pb.RBAC(action=pb.RBAC.ALLOW, policies={"connections": policy})
