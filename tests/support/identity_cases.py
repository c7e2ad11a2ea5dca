"""Who may call: one table of requests and answers, for whatever enforces it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.support import tokens

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and what must come of it.

    `headers` makes the request's headers when the case runs, as tokens age. `reason` is the problem's, None
    where the upstream answers. `upstream` are headers that the upstream must see, None for one that it must not.
    """

    name: str
    path: str
    status: int
    method: str = "GET"
    headers: Callable[[], Headers] = tuple
    reason: str | None = None
    challenge: str | None = None
    upstream: Mapping[str, str | None] = field(default_factory=dict)


def bearer(make: Callable[[], str]) -> Callable[[], Headers]:
    """A token as a client sends it (RFC 6750 section 2.1)."""
    return lambda: (("authorization", f"Bearer {make()}"),)


def _good(name: str, make: Callable[[], str], path: str = "/corp", **upstream: str | None) -> Case:
    seen = {key.replace("_", "-"): value for key, value in upstream.items()}
    return Case(name=name, path=path, status=200, headers=bearer(make), upstream=seen)


def _bad(name: str, reason: str, make: Callable[[], str], path: str = "/corp", status: int = 401) -> Case:
    challenge = 'error="invalid_token"'
    return Case(name=name, path=path, status=status, headers=bearer(make), reason=reason, challenge=challenge)


def _missing(name: str, path: str = "/corp", headers: Callable[[], Headers] = tuple) -> Case:
    return Case(
        name=name, path=path, status=401, headers=headers, reason="jwt_missing", challenge="Bearer realm="
    )


PROVIDERS = f"""
identity:
  corp:
    issuer: {tokens.ISSUER}
    audiences: [shop]
    jwks: {{file: jwks.json}}
    claim_headers: {{sub: x-user-id, realm.level: x-level, realm.roles: x-roles}}
  partner:
    issuer: https://partner.test
    jwks: {{file: jwks.json}}
    from_headers: [x-token]
    from_query: [token]
    from_cookies: [session]
    forward: false
    clock_skew: 0s
    require_expiration: true
"""

JWT_ROUTES = """
  open: {path: /open, upstream: echo}
  corp: {path: /corp, upstream: echo, policies: {jwt: corp}}
  optional: {path: /optional, upstream: echo, policies: {jwt: {provider: corp, optional: true}}}
  partner: {path: /partner, upstream: echo, policies: {jwt: partner}}
  any: {path: /any, upstream: echo, policies: {jwt: [corp, partner]}}
  all: {path: /all, upstream: echo, policies: {jwt: {all: [corp, partner]}}}
  admin: {path: /admin/*, upstream: echo, policies: {jwt: corp}}
  public: {path: /public/*, upstream: echo}
"""


def partner(**more: object) -> str:
    """A token of the second provider."""
    return tokens.token(iss="https://partner.test", **more)


JWT_CASES = (
    Case(name="an open route needs nothing", path="/open", status=200),
    _missing("no token"),
    _missing("another scheme", headers=lambda: (("authorization", "Basic YTpi"),)),
    _missing("a token without its scheme", headers=lambda: (("authorization", tokens.token()),)),
    _missing("a token in the query where only the header counts", path="/corp?access_token=x"),
    *(_good(alg, lambda alg=alg: tokens.token(alg), x_user_id="ann") for alg in tokens.KEYS),
    Case(
        name="the scheme in lower case",
        path="/corp",
        status=200,
        headers=lambda: (("authorization", f"bearer {tokens.token()}"),),
    ),
    _good("a nested claim as a header", lambda: tokens.token(realm={"level": 3}), x_level="3"),
    _good(
        "a list as a header is base64 of JSON",
        lambda: tokens.token(realm={"roles": ["a"]}),
        x_roles="WyJhIl0=",
    ),
    _good("several audiences", lambda: tokens.token(aud=["x", "shop"])),
    _good("expired within the clock skew", lambda: tokens.token(exp=tokens.now() - 30)),
    _good("not yet valid within the clock skew", lambda: tokens.token(nbf=tokens.now() + 30)),
    _good("a large token", lambda: tokens.token(pad="x" * 20_000)),
    _bad("expired", "jwt_expired", lambda: tokens.token(exp=tokens.now() - 90)),
    _bad("not yet valid", "jwt_not_yet_valid", lambda: tokens.token(nbf=tokens.now() + 90)),
    _bad("another audience", "jwt_wrong_audience", lambda: tokens.token(aud="other")),
    _bad("no audience", "jwt_wrong_audience", lambda: tokens.token(aud=None)),
    _bad("another issuer", "jwt_wrong_issuer", lambda: tokens.token(iss="https://evil.test")),
    _bad("no issuer", "jwt_wrong_issuer", lambda: tokens.token(iss=None)),
    _bad("algorithm none", "jwt_malformed", tokens.unsigned),
    _bad("algorithm none with a signature", "jwt_unsupported_algorithm", lambda: tokens.unsigned() + "AAAA"),
    _bad("HS256 with the public key", "jwt_invalid_signature", tokens.forged_with_public_key),
    _bad(
        "a stranger's key under a known kid",
        "jwt_invalid_signature",
        lambda: tokens.token(key=tokens.STRANGER),
    ),
    _bad("an unknown kid", "jwt_unknown_key", lambda: tokens.token(kid="other")),
    _bad("a changed payload", "jwt_invalid_signature", lambda: tokens.tampered(sub="root")),
    _bad("garbage", "jwt_malformed", lambda: "x"),
    _bad("three parts of garbage", "jwt_malformed", lambda: "a.b.c"),
    _bad("two tokens in one header", "jwt_malformed", lambda: f"{tokens.token()}, Bearer {tokens.token()}"),
    Case(
        name="two authorization headers",
        path="/corp",
        status=401,
        headers=lambda: (("authorization", f"Bearer {tokens.token()}"),) * 2,
        reason="jwt_malformed",
        challenge="Bearer realm=",
    ),
    _bad("an oversized token", "headers_too_large", lambda: "x" * 70_000, status=431),
    Case(name="optional, none", path="/optional", status=200),
    _good("optional, good", tokens.token, path="/optional", x_user_id="ann"),
    _bad("optional, bad", "jwt_expired", lambda: tokens.token(exp=1), path="/optional"),
    _missing("the header is not where this provider looks", "/partner", bearer(partner)),
    Case(
        name="in a header of its own, and removed from it",
        path="/partner",
        status=200,
        headers=lambda: (("x-token", partner()),),
        upstream={"x-token": None},
    ),
    Case(
        name="in a cookie",
        path="/partner",
        status=200,
        headers=lambda: (("cookie", f"a=b; session={partner()}"),),
    ),
    Case(
        name="an expiry that this provider requires",
        path="/partner",
        status=401,
        headers=lambda: (("x-token", partner(exp=None)),),
        reason="jwt_invalid_signature",
        challenge="Bearer realm=",
    ),
    _missing("any of two, none", "/any"),
    _good("any of two, the first", tokens.token, path="/any"),
    Case(name="any of two, the second", path="/any", status=200, headers=lambda: (("x-token", partner()),)),
    _bad("any of two, a bad one", "jwt_expired", lambda: tokens.token(exp=1), path="/any"),
    _missing("all of two, one is missing", "/all", bearer(tokens.token)),
    Case(
        name="all of two",
        path="/all",
        status=200,
        headers=lambda: (*bearer(tokens.token)(), ("x-token", partner())),
    ),
    _missing("below the prefix", "/admin/users"),
    _missing("out of a public prefix by dots", "/public/../admin/users"),
    _missing("out of a public prefix by escaped dots", "/public/%2e%2e/admin/users"),
    _missing("with a doubled slash", "//admin/users"),
    _missing("with a doubled slash inside", "/admin//users"),
    _missing("with a path parameter below the prefix", "/admin/;x/users"),
    Case(
        name="with a path parameter beside the prefix", path="/admin;x/users", status=404, reason="not_found"
    ),
    Case(name="in another case", path="/ADMIN/users", status=404, reason="not_found"),
    Case(name="with an escaped slash", path="/public/..%2fadmin", status=400, reason="bad_path"),
)
"""For a gateway of PROVIDERS and JWT_ROUTES."""
